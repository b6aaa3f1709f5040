//! DNS as bytes: borrowed views of messages, and edits that copy a message once.
//!
//! A datagram from a client becomes a [`Query`] or a [`QueryRejection`]; one from a backend becomes a
//! [`Reply`] or a [`MalformedReply`]. `Query` and `Reply` are checked views that borrow the bytes. Output
//! goes to a buffer of the caller with spare capacity, so nothing is allocated:
//!
//! ```text
//!   client --> read_query  --> write_query       --> backend
//!   client <-- write_response <-- read_reply     <-- backend
//!          <-- write_synthesized                     (no backend replied in time)
//!          <-- write_local                           (a rule, a local or a special name)
//!          <-- write_error                           (no query at all)
//! ```
//!
//! Every reader bounds its work by the length of the message, follows compression pointers strictly
//! backwards, and leaves nothing over at the end. RDATA stays opaque (RFC 3597), except in `expand.rs`. This
//! crate has no policy, socket or clock. [`address`](mod@address) has the notation of server addresses.

#![forbid(unsafe_code)]

#[macro_use]
mod labels;

pub mod address;
mod alias;
mod body;
mod cached;
mod case;
mod category;
mod client_subnet;
mod codes;
mod conclusion;
mod cookie;
mod digest;
mod dns64;
mod edns;
mod expand;
mod form;
mod hash;
mod header;
mod hop;
mod local;
mod name;
mod private;
mod query;
mod question;
mod rdata;
mod relay;
mod reply;
#[cfg(test)]
#[path = "tests/sample.rs"]
mod sample;
mod sections;
mod synthesis;
mod text;
mod transport;
mod zone_serial;

pub use alias::{write_behind_cname, write_query_instead};
pub use cached::{Freshness, TtlBounds, clamp_ttls, least_ttl, subtract_age, write_cacheable, write_cached};
pub use case::{has_case, set_case};
pub use category::{ResponseCategory, ResponseSubject};
pub use client_subnet::{ClientSubnet, MalformedClientSubnet, add_client_subnet, give_client_subnet};
pub use codes::{ExtendedError, Opcode, OptionCode, Rcode, RecordClass, RecordType, UnknownRecordType};
pub use conclusion::Conclusion;
pub use cookie::{
    ClientCookie, Cookie, CookieOption, CookiePair, CookieState, MalformedCookie, ServerCookie, ShownCookie,
};
pub use digest::ReplyDigest;
pub use dns64::{Dns64Prefix, Ipv6Answer, NoDns64Prefix, write_dns64, write_without_mapped};
pub use edns::{Edns, MAX_ERROR_TEXT, OptRecord, Options};
pub use form::{ClientEdns, ClientForm, PlainForm};
pub use hash::{HashSeed, NameHasher, QuestionHasher};
pub use header::{Flag, HEADER_LEN, Header, ask_authentic, rewrite_header, set_id};
pub use hop::{
    Asks, QUERY_BLOCK, RESPONSE_BLOCK, add_opt, append_hop_options, ask_keepalive, pad_query, stated_keepalive,
};
pub use local::{LocalRecord, LocalResponse, LocalSoa, local_soa_rdata, write_local};
pub use name::{Name, NameError, eq_ignore_case, fold, labels, suffixes};
pub use private::{is_private, without_private};
pub use query::{
    OwnEdns, Query, QueryRejection, QuestionFlags, QuestionKey, add_cookie, read_query, write_own_query,
    write_plain_query, write_query, write_recursive_query, write_without_opt,
};
pub use question::Question;
pub use rdata::{Field, Mnemonics, NameRule, RdataForm, same_rdata};
pub use relay::{ask_for_cookie, shorten, write_response, write_unchanged};
pub use reply::{MalformedReply, Reply, extended_error, read_reply};
pub use sections::{MalformedMessage, Message, Section, SectionRecord, SectionRecords, is_reply_to};
pub use synthesis::{edns_of_rejected, extended_errors, write_error, write_prohibited, write_synthesized};
pub use text::display_name;
pub use transport::{FRAME_PREFIX, Transport, append_frame, first_message};
pub use zone_serial::{ReportedSerial, ZoneSerial, ask_zone_version};
