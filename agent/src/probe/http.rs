//! `http`: asks for a URL; up when the status is in the accepted set, headers and content are right and, for `https`,
//! the certificate is valid and has enough days left. Options: `peil_proto::plan::Http`.
//!
//! - Phases come from our own connector (`dial`) and from watching the socket: `first_byte` ends when the first
//!   byte of the answer is read, not when its head is complete; the rest, head included, is `transfer`. Over HTTP/2,
//!   where the server speaks first about its settings, `first_byte` ends with the head of the answer.
//! - A status in the accepted set is the answer, also when it is a redirect (so 300–399 in the set means "do
//!   not follow"). Any other 301, 302, 303, 307 or 308 with a `Location` is followed as the check allows, each hop on
//!   a new connection with the address policy asked again, never from https to http. After 303, and after 301 and 302
//!   to a POST, the next request is a GET without a body, as browsers do.
//! - Credentials and secret headers go to the origin (scheme, host, port) of the URL of the check and nowhere else;
//!   a secret body is never sent on. There are no cookies.
//! - A status that is neither ends the probe at once: the body of an error page is not read.
//! - The body is read to its end or to [`BODY_BYTES_MAX`] after decompression; beyond, it is cut and judged on what
//!   was read. Text is looked for in the first 64 KiB, JSON read up to 1 MiB (`body`).
//! - Judged in this order: transport, status, headers, body, JSON, days left. The first that fails is the outcome.
//! - Behind a proxy the proxy resolves the name: the address policy is asked about the proxy, and about a target that
//!   is written as an address. A proxy that cannot be reached, or refuses us, is our way out and not the target.
//!
//! Deliberately absent: HTTP/3, cookies, SOCKS and proxies behind TLS, brotli and zstd (never asked for).

mod body;
mod exchange;
mod proxy;
mod request;

use std::net::IpAddr;

use hyper::body::Incoming;
use hyper::header::LOCATION;
use hyper::{Response, Version};
use peil_proto::plan::{Family, Http, HttpVersion, Redirects};
use peil_proto::sample::FailureKind;

use super::dial::{Deadline, Endpoint, Session, Stream, dial};
use super::location::Location;
use super::tls::judge;
use super::{Body, Fact, Failure, Hop, Kind, Observation, Phase, ProbeContext};
pub(super) use exchange::{Trouble, Watch, open};
use request::Asking;

/// Bytes of a body that are read, after decompression. Then reading stops, the body counts as truncated and is judged
/// as it is.
pub(super) const BODY_BYTES_MAX: u64 = 10 << 20;

pub(super) const KIND: Kind = Kind {
    name: "http",
    about: "asks for a URL and judges status, headers, content and certificate",
    example: "https://www.example.org/health",
    phases: &Phase::ALL,
};

/// How a hop ended when nothing failed.
enum Visit {
    /// At its destination, with this status.
    Arrived(u16),
    /// With a redirect of this status to here.
    SentOn(u16, Location),
}

pub(super) async fn run(check: &Http, family: Family, ctx: &ProbeContext, deadline: Deadline) -> Observation {
    let mut seen = Seen::default();
    let end = follow(check, family, ctx, deadline, &mut seen).await;
    let facts = seen.version.map(|version| Fact::new("version", format_args!("{version:?}"))).into_iter().collect();
    Observation::from_end(seen.hops, seen.body, end).with_facts(facts)
}

/// What is learnt on the way, whatever the end.
#[derive(Default)]
struct Seen {
    hops: Vec<Hop>,
    body: Option<Body>,
    version: Option<Version>,
}

async fn follow(
    check: &Http,
    family: Family,
    ctx: &ProbeContext,
    deadline: Deadline,
    seen: &mut Seen,
) -> Result<u16, Failure> {
    let mut location = Location::parse(&check.url).map_err(|why| Failure::unusable(format!("the URL {why}")))?;
    let mut asking = Asking::of(check, &location, ctx)?;
    for _ in 0..=check.redirects_max {
        let mut hop = Hop { target: location.to_string(), ..Hop::default() };
        let visit = Visitor { check, family, ctx, deadline, asking: &asking, location: &location };
        let end = visit.visit(&mut hop, seen).await;
        seen.hops.push(hop);
        match end? {
            Visit::SentOn(status, next) => {
                asking.redirected(status, &next)?;
                location = next;
            }
            Visit::Arrived(status) => {
                return seen.hops.iter().try_for_each(|hop| judge(hop, &check.tls, ctx)).map(|()| status);
            }
        }
    }
    let text = format!("more than {} redirects, the next to {location}", check.redirects_max);
    Err(Failure::judged(FailureKind::Redirect, text))
}

/// One hop.
struct Visitor<'a> {
    check: &'a Http,
    family: Family,
    ctx: &'a ProbeContext,
    deadline: Deadline,
    asking: &'a Asking,
    location: &'a Location,
}

impl Visitor<'_> {
    /// Dials, asks, and reads as far as it matters.
    async fn visit(&self, hop: &mut Hop, seen: &mut Seen) -> Result<Visit, Failure> {
        let (stream, http2) = self.connect(hop).await?;
        let through_proxy = self.check.proxy.is_some() && !self.location.secure;
        let request = self.asking.request(self.location, http2, through_proxy)?;
        let watch = Watch::start();
        let exchange = async {
            let (mut sender, mut driver) = open(stream, http2, &watch).await?;
            let response = driver.beside(sender.send(request)).await?;
            watch.head_came();
            hop.status = Some(response.status().as_u16());
            seen.version = Some(response.version());
            self.answered(response, &mut seen.body, &mut driver).await
        };
        let end = self.deadline.allows(exchange).await;
        let phase = watch.note(hop);
        match end {
            Some(Ok(visit)) => Ok(visit),
            Some(Err(trouble)) => Err(trouble.into_failure(phase)),
            None if phase == Phase::FirstByte => {
                Err(Failure::during(phase, FailureKind::Timeout, "connected, but no answer came"))
            }
            None => Err(Failure::during(phase, FailureKind::Timeout, "the answer began, but did not end")),
        }
    }

    /// A connection on which a request can be sent, and whether it speaks HTTP/2.
    async fn connect(&self, hop: &mut Hop) -> Result<(Stream, bool), Failure> {
        let Location { secure, host, port, .. } = self.location;
        let alpn: &[&[u8]] = match self.check.version {
            HttpVersion::Auto => &[b"h2", b"http/1.1"],
            HttpVersion::V11 => &[b"http/1.1"],
            HttpVersion::V2 => &[b"h2"],
        };
        let alpn = || alpn.iter().map(|name| name.to_vec()).collect();
        let session = secure.then(|| Session::prepare(host, &self.check.tls, alpn(), self.ctx)).transpose()?;
        let stream = match &self.check.proxy {
            Some(proxy) => {
                self.may_ask_a_proxy_for(host)?;
                let stream = proxy::reach(proxy, self.family, self.ctx, self.deadline, hop).await?;
                match secure {
                    true => proxy::tunnel(stream, self.location, self.asking, self.deadline, hop).await?,
                    false => stream,
                }
            }
            None => dial(Endpoint { host, port: *port, family: self.family }, self.ctx, self.deadline, hop).await?,
        };
        let Some(session) = session else { return Ok((stream, self.check.version == HttpVersion::V2)) };
        let stream = session.start(stream, self.deadline, hop).await?;
        let agreed = hop.tls.as_ref().and_then(|tls| tls.agreed.as_ref()).and_then(|agreed| agreed.alpn.as_deref());
        let http2 = agreed == Some("h2");
        if self.check.version == HttpVersion::V2 && !http2 {
            return Err(Failure::judged(FailureKind::Protocol, "the server did not agree on HTTP/2"));
        }
        Ok((stream, http2))
    }

    /// The proxy dials, so only an address that stands in the URL can be asked about here.
    fn may_ask_a_proxy_for(&self, host: &str) -> Result<(), Failure> {
        let refusal = host.parse::<IpAddr>().ok().and_then(|ip| self.ctx.addresses.refusal(ip));
        match refusal {
            Some(why) => Err(Failure::during(Phase::Connect, FailureKind::Denied, format!("{host}: {why}"))),
            None => Ok(()),
        }
    }

    async fn answered(
        &self,
        response: Response<Incoming>,
        body: &mut Option<Body>,
        driver: &mut exchange::Driver,
    ) -> Result<Visit, Trouble> {
        let status = response.status().as_u16();
        if !self.check.accepts(status) {
            return self.next_of(&response).map(|next| Visit::SentOn(status, next)).map_err(Trouble::Judged);
        }
        body::judge_headers(response.headers(), self.check).map_err(Trouble::Judged)?;
        let read = driver.beside(body::read(response, self.check, body)).await?;
        read.judge(self.check).map_err(Trouble::Judged)?;
        Ok(Visit::Arrived(status))
    }

    /// Where a response with a status that is not accepted leads.
    fn next_of(&self, response: &Response<Incoming>) -> Result<Location, Failure> {
        let status = response.status().as_u16();
        let to = match (status, response.headers().get(LOCATION)) {
            (301 | 302 | 303 | 307 | 308, Some(to)) if self.check.redirects != Redirects::None => to,
            _ => return Err(Failure::judged(FailureKind::Status, format!("status {status} is not accepted"))),
        };
        let next = self.location.join(to.as_bytes()).map_err(|why| Failure::judged(FailureKind::Redirect, why))?;
        if self.check.redirects == Redirects::SameHost && !next.host.eq_ignore_ascii_case(&self.location.host) {
            let text = format!("redirect to another host, {next}");
            return Err(Failure::judged(FailureKind::Redirect, text));
        }
        Ok(next)
    }
}
