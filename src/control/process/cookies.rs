//! The server's own cookie secret: random at the start, replaced about once a day, kept through reloads.
//! Sections with a secret file do not use it.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use config::CookieConfig;
use limit::{COOKIE_LIFETIME, CookieSecret, CookieSecrets, Cookies};
use rand::rngs::SysRng;
use rand::{RngExt, TryRng};

pub(in crate::control) struct OwnSecret {
    cookies: Arc<Cookies>,
    due: Instant,
    /// True if the previous secret is still accepted.
    is_rolled: bool,
}

impl OwnSecret {
    pub(in crate::control) fn new(now: Instant) -> io::Result<Self> {
        let cookies = Arc::new(Cookies::new(CookieSecrets::new(fresh()?, None)));
        Ok(Self { cookies, due: now + until_roll(), is_rolled: false })
    }

    /// Returns the cookie generator of a forwarder or authority, if cookies are enabled. `files` has the
    /// secrets from files.
    pub(in crate::control) fn cookies(
        &self,
        config: &CookieConfig,
        files: &HashMap<PathBuf, CookieSecrets>,
    ) -> Option<Arc<Cookies>> {
        let secrets = config.secrets_file.as_ref().and_then(|file| files.get(file));
        let cookies =
            || secrets.map_or_else(|| Arc::clone(&self.cookies), |known| Arc::new(Cookies::new(known.clone())));
        config.enabled.then(cookies)
    }

    /// Called once a second.
    pub(in crate::control) fn tick(&mut self, now: Instant) {
        if now < self.due {
            return;
        }
        if self.is_rolled {
            self.cookies.retire();
            (self.due, self.is_rolled) = (now + until_roll(), false);
            return;
        }
        self.due = now + ACCEPTED;
        match fresh() {
            Ok(secret) => {
                self.cookies.roll(secret);
                self.is_rolled = true;
            }
            // RFC 7873 section 7.1 leaves a month for this.
            Err(error) => {
                tracing::error!(%error, "a new secret for DNS cookies cannot be made, so the current one stays for another hour");
            }
        }
    }
}

fn fresh() -> io::Result<CookieSecret> {
    let mut octets = [0; 16];
    SysRng.try_fill_bytes(&mut octets).map_err(io::Error::other)?;
    Ok(CookieSecret::new(octets))
}

/// Returns the lifetime of a secret. RFC 7873 section 7.1: a day, less up to 40 % at random, so that the time
/// is not predictable and servers do not roll at the same time.
fn until_roll() -> Duration {
    DAY.mul_f64(rand::rng().random_range(0.6..1.0))
}

const DAY: Duration = Duration::from_secs(24 * 3600);

/// The time for which a replaced secret is accepted: the lifetime of its cookies (RFC 9018 section 5).
const ACCEPTED: Duration = Duration::from_secs(COOKIE_LIFETIME as u64);

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use dns::{CookieState, read_query};

    use super::*;

    fn query(cookie: &[u8]) -> Vec<u8> {
        let rdlength = [0, cookie.len() as u8 + 4];
        let head = b"\0\x07\x01\0\0\x01\0\0\0\0\0\x01\0\0\x02\0\x01\0\0\x29\x04\xD0\0\0\0\0";
        [head, &rdlength[..], &[0, 10, 0, cookie.len() as u8], cookie].concat()
    }

    /// Returns the COOKIE option of the response, and the state of the query's cookie.
    fn answer(cookies: &Cookies, cookie: &[u8]) -> (Vec<u8>, CookieState) {
        let message = query(cookie);
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let given = cookies.answer(&read_query(&message), &message, address, || 1000).expect("a legal cookie");
        let given = given.expect("there was one");
        ([&given.client[..], &given.server].concat(), given.state)
    }

    #[test]
    fn the_secret_is_replaced_daily_and_accepted_for_an_hour_more() {
        let start = Instant::now();
        let mut own = OwnSecret::new(start).expect("there is randomness");
        let cookies = own.cookies(&CookieConfig::default(), &HashMap::new()).expect("they are on");
        let (first, state) = answer(&cookies, b"CLIENT01");
        assert_eq!(state, CookieState::Missing);
        own.tick(start + DAY.mul_f64(0.59));
        assert_eq!(answer(&cookies, &first), (first.clone(), CookieState::Valid));
        own.tick(start + DAY);
        let (second, state) = answer(&cookies, &first);
        assert!(second != first && state == CookieState::Valid, "it is replaced, and accepted still");
        own.tick(start + DAY + ACCEPTED - Duration::from_secs(1));
        assert_eq!(answer(&cookies, &first).1, CookieState::Valid);
        own.tick(start + DAY + ACCEPTED);
        assert_eq!(answer(&cookies, &first).1, CookieState::Invalid);
        assert_eq!(answer(&cookies, &second), (second.clone(), CookieState::Valid));
        own.tick(start + DAY + ACCEPTED + DAY);
        assert_ne!(answer(&cookies, &second).0, second, "the next is replaced as well");
    }

    #[test]
    fn rolls_are_up_to_40_percent_early_at_random() {
        let times: Vec<_> = (0..100).map(|_| until_roll()).collect();
        assert!(times.iter().all(|time| (DAY.mul_f64(0.6)..=DAY).contains(time)), "{times:?}");
        let (early, late) = (times.iter().min().expect("many"), times.iter().max().expect("many"));
        // By chance 100 draws leave out a half of the range once in 10^30 times.
        assert!(*early < DAY.mul_f64(0.8) && *late > DAY.mul_f64(0.8), "{times:?}");
    }

    #[test]
    fn a_file_goes_before_our_own_secret() {
        let own = OwnSecret::new(Instant::now()).expect("there is randomness");
        let file = PathBuf::from("f");
        let secrets = CookieSecrets::parse("000102030405060708090a0b0c0d0e0f").expect("a secret");
        let files = HashMap::from([(file.clone(), secrets)]);
        let config = |enabled, secrets_file| CookieConfig { enabled, secrets_file };
        let [of_file, again] = [(); 2].map(|()| own.cookies(&config(true, Some(file.clone())), &files).expect("on"));
        let [ours, ours_again] = [(); 2].map(|()| own.cookies(&config(true, None), &files).expect("on"));
        let (cookie, _) = answer(&of_file, b"CLIENT01");
        assert_eq!(answer(&again, &cookie).1, CookieState::Valid);
        assert_eq!(answer(&ours, &cookie).1, CookieState::Invalid);
        assert!(Arc::ptr_eq(&ours, &ours_again));
        assert!(own.cookies(&config(false, Some(file)), &files).is_none());
    }
}
