//! Client TLS inside QUIC (RFC 9001), by rustls for `quinn-proto`. Unlike the version in `quinn-proto`, it
//! reports resumption, the idle timeout and readable certificate problems, and accepts identity by address.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use quinn_proto::crypto::{self, ExportKeyingMaterialError, HeaderKey, KeyPair, Keys, PacketKey, Session};
use quinn_proto::transport_parameters::TransportParameters;
use quinn_proto::{ConnectError, ConnectionId, Side, TransportError, TransportErrorCode};
use ring::aead;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::quic::{ClientConnection, KeyChange, PacketKeySet, Secrets, Suite, Version};
use tokio_rustls::rustls::{self, AlertDescription, CipherSuite, ClientConfig, Error, HandshakeKind};

use super::problem::tls_problem;

pub(super) struct QuicTls {
    pub(super) config: Arc<ClientConfig>,
    pub(super) server_name: ServerName<'static>,
}

/// The result of a QUIC handshake, for `Session::handshake_data`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QuicHandshake {
    /// True if an earlier session was resumed.
    pub is_resumed: bool,
    /// The server's idle timeout (RFC 9000 section 10.1), if it sends one.
    pub max_idle_timeout: Option<Duration>,
}

struct QuicSession {
    tls: ClientConnection,
    initial: Suite,
    next_secrets: Option<Secrets>,
    has_reported: bool,
}

/// Describes a QUIC error that carries a TLS alert (RFC 9001 section 4.8).
pub(crate) fn tls_alert(code: TransportErrorCode) -> Option<String> {
    let alert = u64::from(code).checked_sub(FIRST_ALERT).and_then(|alert| u8::try_from(alert).ok())?;
    Some(tls_problem(&Error::AlertReceived(AlertDescription::from(alert))))
}

impl crypto::ClientConfig for QuicTls {
    fn start_session(
        self: Arc<Self>,
        _version: u32,
        _server_name: &str,
        params: &TransportParameters,
    ) -> Result<Box<dyn Session>, ConnectError> {
        let mut octets = Vec::new();
        params.write(&mut octets);
        let refused = || ConnectError::InvalidServerName(self.server_name.to_str().into_owned());
        let initial = initial_suite(&self.config).ok_or_else(refused)?;
        let tls = ClientConnection::new(Arc::clone(&self.config), Version::V1, self.server_name.clone(), octets);
        let tls = tls.map_err(|_| refused())?;
        Ok(Box::new(QuicSession { tls, initial, next_secrets: None, has_reported: false }))
    }
}

/// RFC 9001 section 5.2: AES-128-GCM always protects the first flight.
fn initial_suite(config: &ClientConfig) -> Option<Suite> {
    let suites = config.crypto_provider().cipher_suites.iter();
    let mut suites = suites.filter(|suite| suite.suite() == CipherSuite::TLS13_AES_128_GCM_SHA256);
    suites.find_map(|suite| suite.tls13()?.quic_suite())
}

impl Session for QuicSession {
    fn initial_keys(&self, dst_cid: &ConnectionId, side: Side) -> Keys {
        let side = match side {
            Side::Client => rustls::Side::Client,
            Side::Server => rustls::Side::Server,
        };
        keys(self.initial.keys(dst_cid, side, Version::V1))
    }

    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        let parameters = self.tls.quic_transport_parameters()?;
        let max_idle_timeout = idle_timeout_of(parameters).filter(|timeout| *timeout > 0);
        let is_resumed = self.tls.handshake_kind() == Some(HandshakeKind::Resumed);
        Some(Box::new(QuicHandshake { is_resumed, max_idle_timeout: max_idle_timeout.map(Duration::from_millis) }))
    }

    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        None
    }

    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        let keys = self.tls.zero_rtt_keys()?;
        Some((Box::new(keys.header), Box::new(keys.packet)))
    }

    fn early_data_accepted(&self) -> Option<bool> {
        Some(self.tls.is_early_data_accepted())
    }

    fn is_handshaking(&self) -> bool {
        self.tls.is_handshaking()
    }

    fn read_handshake(&mut self, octets: &[u8]) -> Result<bool, TransportError> {
        self.tls.read_hs(octets).map_err(|error| {
            let alert = self.tls.alert().unwrap_or(AlertDescription::InternalError);
            let code = TransportErrorCode::crypto(alert.into());
            TransportError { code, frame: None, reason: tls_problem(&error) }
        })?;
        let is_new = !self.has_reported && !self.tls.is_handshaking();
        self.has_reported |= is_new;
        Ok(is_new)
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        let read = |octets: &[u8]| TransportParameters::read(Side::Client, &mut &*octets).map_err(TransportError::from);
        self.tls.quic_transport_parameters().map(read).transpose()
    }

    fn write_handshake(&mut self, octets: &mut Vec<u8>) -> Option<Keys> {
        match self.tls.write_hs(octets)? {
            KeyChange::Handshake { keys: changed } => Some(keys(changed)),
            KeyChange::OneRtt { keys: changed, next } => {
                self.next_secrets = Some(next);
                Some(keys(changed))
            }
        }
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        let PacketKeySet { local, remote } = self.next_secrets.as_mut()?.next_packet_keys();
        Some(KeyPair { local: Box::new(local), remote: Box::new(remote) })
    }

    fn is_valid_retry(&self, orig_dst_cid: &ConnectionId, header: &[u8], payload: &[u8]) -> bool {
        let Some((token, tag)) = payload.len().checked_sub(RETRY_TAG).and_then(|end| payload.split_at_checked(end))
        else {
            return false;
        };
        // RFC 9001 section 5.8: the tag covers the client's original ID and everything before the tag.
        let mut covered = Vec::with_capacity(1 + orig_dst_cid.len() + header.len() + token.len());
        covered.push(orig_dst_cid.len() as u8);
        [&orig_dst_cid[..], header, token].iter().for_each(|part| covered.extend_from_slice(part));
        let key = aead::UnboundKey::new(&aead::AES_128_GCM, &RETRY_KEY).map(aead::LessSafeKey::new);
        let nonce = aead::Nonce::assume_unique_for_key(RETRY_NONCE);
        key.is_ok_and(|key| key.open_in_place(nonce, aead::Aad::from(covered), &mut tag.to_vec()).is_ok())
    }

    fn export_keying_material(&self, _: &mut [u8], _: &[u8], _: &[u8]) -> Result<(), ExportKeyingMaterialError> {
        Err(ExportKeyingMaterialError)
    }
}

fn keys(keys: rustls::quic::Keys) -> Keys {
    let rustls::quic::Keys { local, remote } = keys;
    Keys {
        header: KeyPair { local: Box::new(local.header), remote: Box::new(remote.header) },
        packet: KeyPair { local: Box::new(local.packet), remote: Box::new(remote.packet) },
    }
}

/// Reads `max_idle_timeout` in milliseconds (RFC 9000 section 18.2).
fn idle_timeout_of(mut parameters: &[u8]) -> Option<u64> {
    loop {
        let id = take_integer(&mut parameters)?;
        let length = usize::try_from(take_integer(&mut parameters)?).ok()?;
        let (mut value, rest) = parameters.split_at_checked(length)?;
        if id == MAX_IDLE_TIMEOUT {
            return take_integer(&mut value);
        }
        parameters = rest;
    }
}

/// Takes an integer of variable length (RFC 9000 section 16).
fn take_integer(octets: &mut &[u8]) -> Option<u64> {
    let first = *octets.first()?;
    let (integer, rest) = octets.split_at_checked(1 << (first >> 6))?;
    *octets = rest;
    let behind = integer.iter().skip(1);
    Some(behind.fold(u64::from(first & 0x3F), |integer, octet| integer << 8 | u64::from(*octet)))
}

const MAX_IDLE_TIMEOUT: u64 = 1;

const FIRST_ALERT: u64 = 0x100;

const RETRY_TAG: usize = 16;

/// The Retry integrity key and nonce (RFC 9001 section 5.8).
const RETRY_KEY: [u8; 16] =
    [0xbe, 0x0c, 0x69, 0x0b, 0x9f, 0x66, 0x57, 0x5a, 0x1d, 0x76, 0x6b, 0x54, 0xe3, 0x68, 0xc8, 0x4e];

const RETRY_NONCE: [u8; 12] = [0x46, 0x15, 0x99, 0xd3, 0x5d, 0x63, 0x2b, 0xf2, 0x23, 0x98, 0x25, 0xbb];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_timeout_is_found_among_parameters() {
        let parameters = [0x0f, 2, 7, 7, 0x01, 4, 0x9d, 0x7f, 0x3e, 0x7d, 0x04, 1, 0];
        assert_eq!(idle_timeout_of(&parameters), Some(494_878_333));
        assert_eq!(
            idle_timeout_of(&[0x01, 8, 0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c]),
            Some(151_288_809_941_952_652)
        );
        for broken in [&[][..], &[0x04, 1, 0], &[0x01, 9, 0], &[0x01], &[0x41], &[0x01, 0]] {
            assert_eq!(idle_timeout_of(broken), None, "{broken:?}");
        }
    }

    #[test]
    fn alerts_are_told_by_name() {
        let code = TransportErrorCode::crypto(120);
        assert_eq!(
            tls_alert(code).unwrap(),
            "it ended the handshake or connection with the alert NoApplicationProtocol"
        );
        assert_eq!(tls_alert(TransportErrorCode::CONNECTION_REFUSED), None);
    }
}
