//! The bank's addresses, looked up off the request path.
//!
//! Look-ups cannot be cancelled, so they have a thread of their own; a slow resolver delays a refresh and nothing else.
//! The last good answer serves while look-ups fail, for as long as `dns.stale` says.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::mpsc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::config::{Dns, Remote};

/// How soon a failed look-up is tried again; doubled up to `dns.refresh`.
const RETRY_MIN: Duration = Duration::from_secs(1);

/// The current addresses of one bank. Dropping it ends its thread at the next look-up.
#[derive(Debug)]
pub struct Resolver {
    answers: watch::Receiver<Answer>,
    stale: Option<Duration>,
    /// Held so that the thread sees its end.
    _stop: Option<mpsc::Sender<()>>,
}

#[derive(Clone, Debug, Default)]
struct Answer {
    addresses: Vec<SocketAddr>,
    /// When it was good; `None` before the first good one.
    at: Option<Instant>,
    /// Whether any look-up has ended, well or not.
    tried: bool,
}

impl Resolver {
    /// Fixed addresses, an IP literal, or a thread that looks the name up again and again.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(remote: &Remote, dns: &Dns) -> std::io::Result<Self> {
        let literal: Option<IpAddr> = remote.host.parse().ok();
        let fixed: Vec<IpAddr> = match literal {
            Some(ip) => vec![ip],
            None => dns.addresses.clone(),
        };
        if !fixed.is_empty() {
            let addresses = fixed
                .into_iter()
                .map(|ip| SocketAddr::new(ip, remote.port))
                .collect();
            let answer = Answer {
                addresses,
                at: None,
                tried: true,
            };
            let (_, answers) = watch::channel(answer);
            return Ok(Self {
                answers,
                stale: None,
                _stop: None,
            });
        }
        let (publish, answers) = watch::channel(Answer::default());
        let (stop, stopped) = mpsc::channel();
        let name = (remote.host.clone(), remote.port);
        let refresh = dns.refresh;
        std::thread::Builder::new()
            .name("resolver".to_owned())
            .spawn(move || look_up_forever(&name, refresh, &publish, &stopped))?;
        Ok(Self {
            answers,
            stale: Some(dns.stale),
            _stop: Some(stop),
        })
    }

    /// The addresses to try, in order; empty when there are none to trust. Waits for the first look-up, until
    /// `deadline`.
    pub async fn addresses(&self, deadline: Instant) -> Vec<SocketAddr> {
        let mut answers = self.answers.clone();
        let first = tokio::time::timeout_at(deadline, answers.wait_for(|answer| answer.tried));
        match first.await {
            Ok(Ok(answer)) => self.fresh(&answer, Instant::now()),
            Ok(Err(_)) | Err(_) => Vec::new(),
        }
    }

    /// The addresses as they stand, for the status.
    #[must_use]
    pub fn current(&self) -> Vec<SocketAddr> {
        self.fresh(&self.answers.borrow(), Instant::now())
    }

    fn fresh(&self, answer: &Answer, now: Instant) -> Vec<SocketAddr> {
        let too_old = match (self.stale, answer.at) {
            (Some(stale), Some(at)) => now.saturating_duration_since(at) > stale,
            (Some(_), None) => true,
            (None, _) => false,
        };
        if too_old {
            Vec::new()
        } else {
            answer.addresses.clone()
        }
    }
}

fn look_up_forever(
    name: &(String, u16),
    refresh: Duration,
    publish: &watch::Sender<Answer>,
    stopped: &mpsc::Receiver<()>,
) {
    let mut retry = RETRY_MIN;
    let mut failing = false;
    loop {
        let found = (name.0.as_str(), name.1)
            .to_socket_addrs()
            .map(Iterator::collect::<Vec<_>>);
        let pause = match found {
            Ok(addresses) if !addresses.is_empty() => {
                if failing {
                    tracing::info!(host = name.0, "the bank's name resolves again");
                }
                failing = false;
                retry = RETRY_MIN;
                publish.send_replace(Answer {
                    addresses,
                    at: Some(Instant::now()),
                    tried: true,
                });
                refresh
            }
            other => {
                let cause = other
                    .err()
                    .map_or_else(|| "no address".to_owned(), |error| error.to_string());
                if !failing {
                    tracing::warn!(host = name.0, cause, "the bank's name does not resolve");
                }
                failing = true;
                publish.send_modify(|answer| answer.tried = true);
                let pause = retry;
                retry = retry.saturating_mul(2).min(refresh);
                pause
            }
        };
        // Disconnected: the bank was reconfigured or the process ends.
        if stopped.recv_timeout(pause) == Err(mpsc::RecvTimeoutError::Disconnected) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(host: &str) -> Remote {
        Remote {
            host: host.to_owned(),
            port: 443,
            authority: host.to_owned(),
        }
    }

    fn dns(addresses: Vec<IpAddr>) -> Dns {
        Dns {
            refresh: Duration::from_secs(30),
            stale: Duration::from_secs(3600),
            addresses,
        }
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    #[tokio::test(flavor = "current_thread")]
    async fn fixed_addresses_come_before_any_look_up() {
        let ip: IpAddr = "203.0.113.7".parse().unwrap();
        let resolver = Resolver::start(&remote("bank.invalid"), &dns(vec![ip])).unwrap();
        assert_eq!(resolver.addresses(soon()).await, [SocketAddr::new(ip, 443)]);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_literal_needs_no_look_up_and_a_name_gets_one() {
        let resolver = Resolver::start(&remote("::1"), &dns(vec![])).unwrap();
        assert_eq!(
            resolver.addresses(soon()).await,
            ["[::1]:443".parse().unwrap()]
        );
        let resolver = Resolver::start(&remote("localhost"), &dns(vec![])).unwrap();
        assert!(
            resolver
                .addresses(soon())
                .await
                .iter()
                .all(|found| found.ip().is_loopback())
        );
    }

    #[tokio::test(flavor = "current_thread")]
    async fn an_answer_older_than_stale_is_not_trusted() {
        let (publish, answers) = watch::channel(Answer::default());
        let resolver = Resolver {
            answers,
            stale: Some(Duration::from_secs(60)),
            _stop: None,
        };
        let addresses = vec!["203.0.113.7:443".parse().unwrap()];
        let at = Instant::now();
        publish.send_replace(Answer {
            addresses: addresses.clone(),
            at: Some(at),
            tried: true,
        });
        let answer = resolver.answers.borrow().clone();
        assert_eq!(
            resolver.fresh(&answer, at + Duration::from_secs(60)),
            addresses
        );
        assert!(
            resolver
                .fresh(&answer, at + Duration::from_secs(61))
                .is_empty()
        );
    }
}
