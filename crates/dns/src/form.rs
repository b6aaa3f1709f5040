//! The form in which a client wants its response, kept while its race runs.

use super::case::QnameCase;
use super::codes::Rcode;
use super::cookie::{Cookie, CookieState};
use super::edns::Edns;
use super::header::{Flag, HEADER_LEN, Header};
use super::hop::Asks;
use super::query::Query;
use super::relay::MAX_MESSAGE;
use super::transport::Transport;

/// The form of one client's query. It is small and `Copy`, because many of them wait in one race.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientForm {
    /// The ID of the query.
    pub id: u16,
    /// The OPT record of the query; `None` if it had none.
    pub edns: Option<ClientEdns>,
    /// The cookie of the response, if the query had one and hedgerow sends cookies.
    pub cookie: Option<Cookie>,
    recursion_desired: bool,
    checking_disabled: bool,
    /// True if the client asks for AD, by AD or DO (RFC 6840 section 5.7).
    asks_authentic: bool,
    qname_case: QnameCase,
}

/// The form of a query without its two largest parts: the case of the name and the cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlainForm {
    /// The ID of the query.
    pub id: u16,
    edns: Option<ClientEdns>,
    /// RD, CD and the request for AD, each as one bit.
    flags: u8,
    /// The state of the client's cookie, if it sent one.
    pub cookie: Option<CookieState>,
}

impl PlainForm {
    /// Returns the form with the case of this name, without a cookie.
    pub fn with_case_of(self, qname: &[u8]) -> ClientForm {
        let Self { id, edns, flags, cookie: _ } = self;
        let [recursion_desired, checking_disabled, asks_authentic] = [1, 2, 4].map(|bit| flags & bit != 0);
        let qname_case = QnameCase::of(qname);
        ClientForm { id, edns, cookie: None, recursion_desired, checking_disabled, asks_authentic, qname_case }
    }
}

/// The part of a client's OPT record that shapes its response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientEdns {
    /// The largest UDP message that the client accepts.
    pub udp_size: u16,
    /// DO, which a response copies (RFC 3225 section 3).
    pub dnssec_ok: bool,
    /// The requests made by its options.
    pub asks: Asks,
}

impl ClientEdns {
    fn of(edns: &Edns<'_>) -> Self {
        Self { udp_size: edns.udp_size, dnssec_ok: edns.dnssec_ok, asks: Asks::of(edns) }
    }
}

impl ClientForm {
    /// Makes the form of a query, without a cookie.
    pub fn of(query: &Query<'_>) -> Self {
        Self {
            id: query.header.id(),
            edns: query.edns.as_ref().map(ClientEdns::of),
            cookie: None,
            recursion_desired: query.header.recursion_desired(),
            checking_disabled: query.header.checking_disabled(),
            asks_authentic: query.header.authentic_data() || query.edns.is_some_and(|edns| edns.dnssec_ok),
            qname_case: QnameCase::of(query.question.qname()),
        }
    }

    /// Sets the cookie of the response.
    pub fn with_cookie(self, cookie: Option<Cookie>) -> Self {
        Self { cookie, ..self }
    }

    /// Returns the longest response to the client by a transport.
    pub fn limit(&self, transport: Transport, own_udp_size: u16) -> usize {
        limit(transport, self.edns.map(|edns| edns.udp_size), own_udp_size)
    }

    pub(super) fn adapt(&self, header: Header) -> Header {
        // RFC 6840 section 5.8: only clients that ask for AD get it.
        let is_authentic = header.authentic_data() && self.asks_authentic;
        header.with(Flag::RecursionDesired, self.recursion_desired).with(Flag::AuthenticData, is_authentic)
    }

    pub(super) fn response_header(&self) -> Header {
        Header::new(self.id)
            .with(Flag::RecursionDesired, self.recursion_desired)
            .with(Flag::CheckingDisabled, self.checking_disabled)
            .to_response()
    }

    /// Returns the rcode for the header of the response: without EDNS there are only 4 bits for it.
    pub(super) fn header_rcode(&self, rcode: Rcode) -> Rcode {
        if rcode.0 > Rcode::MAX_IN_HEADER && self.edns.is_none() { Rcode::SERVFAIL } else { rcode }
    }

    /// Returns the form without case and cookie, for a caller that keeps the name unfolded.
    pub fn plain(self) -> PlainForm {
        let Self { id, edns, cookie, recursion_desired, checking_disabled, asks_authentic, qname_case: _ } = self;
        let flags = u8::from(recursion_desired) | u8::from(checking_disabled) << 1 | u8::from(asks_authentic) << 2;
        PlainForm { id, edns, flags, cookie: cookie.map(|cookie| cookie.state) }
    }

    /// Restores the case that the client chose on the name of its query.
    pub fn restore_case(&self, qname: &mut [u8]) {
        self.qname_case.apply(qname);
    }

    pub(super) fn restore_question_case(&self, qname_len: usize, message: &mut [u8]) {
        if let Some(qname) = message.get_mut(HEADER_LEN..HEADER_LEN + qname_len) {
            self.qname_case.apply(qname);
        }
    }
}

pub(super) fn limit(transport: Transport, udp_size: Option<u16>, own_udp_size: u16) -> usize {
    if transport.is_stream() {
        return MAX_MESSAGE;
    }
    // RFC 1035 section 2.3.4 without EDNS. RFC 6891 section 6.2.3: values below 512 are taken as 512.
    udp_size.map_or(MIN_UDP_LEN, |udp_size| MIN_UDP_LEN.max(usize::from(udp_size.min(own_udp_size))))
}

const MIN_UDP_LEN: usize = 512;

#[cfg(test)]
mod tests {
    use super::super::query::read_query;
    use super::*;

    #[test]
    fn a_form_is_small() {
        assert!(size_of::<ClientForm>() <= 72);
        assert!(size_of::<PlainForm>() <= 8);
    }

    #[test]
    fn form_is_made_whole_by_the_name_as_it_came() {
        let query = b"\0\x07\x01\x10\0\x01\0\0\0\0\0\0\x03wWw\x02eX\0\0\x01\0\x01";
        let form = ClientForm::of(&read_query(query).expect("a query"));
        let mut qname = *b"\x03www\x02EX\0";
        form.restore_case(&mut qname);
        assert_eq!(&qname, b"\x03wWw\x02eX\0");
        assert_eq!(form.plain().with_case_of(&qname), form);
    }

    #[test]
    fn udp_limits_lie_between_512_and_our_own() {
        let check = |client: Option<u16>, own: u16, expected: usize| {
            let edns = client.map(|udp_size| ClientEdns { udp_size, dnssec_ok: false, asks: Asks::default() });
            let form = ClientForm {
                id: 0,
                edns,
                cookie: None,
                recursion_desired: false,
                checking_disabled: false,
                asks_authentic: false,
                qname_case: QnameCase::of(b"\0"),
            };
            assert_eq!(form.limit(Transport::Udp, own), expected, "{client:?} {own}");
        };
        check(None, 1232, 512);
        check(Some(0), 1232, 512);
        check(Some(511), 1232, 512);
        check(Some(1000), 1232, 1000);
        check(Some(4096), 1232, 1232);
        check(Some(4096), 100, 512);
    }
}
