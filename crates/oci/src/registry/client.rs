//! One registry: requests, who asks, and what is tried again.

use super::challenge::Challenge;
use super::credentials::Credentials;
use super::{Location, Patience, RegistryError};
use rustls::crypto::ring;
use serde::Deserialize;
use std::io::{self, Read as _};
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;
use ureq::http::{HeaderMap, Response, header};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, Body, Proxy};

/// What manifests and indexes are called, of image-spec and of docker.
const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.docker.distribution.manifest.v2+json";
/// Bytes of an answer that is no blob: a token, or why there is none.
const ANSWER: u64 = 1 << 20;
/// Letters of a registry's own words that are shown.
const SHOWN: usize = 200;

/// What is asked for.
#[derive(Clone, Copy)]
pub(super) enum Ask<'a> {
    /// Whether there is a manifest of this name, and which.
    Whether(&'a str),
    Manifest(&'a str),
    /// A blob, without its first bytes.
    Blob(&'a str, u64),
}

/// A registry, in turn with us.
pub(super) struct Client {
    agent: Agent,
    location: Location,
    /// The value of the field `Authorization`, as soon as it was asked for.
    authorization: Option<String>,
    patience: Patience,
    /// Attempts that have failed since something came.
    failed: u32,
}

/// Why an attempt failed, and whether another one may not.
struct Failure {
    why: String,
    again: Again,
}

enum Again {
    Never,
    /// After some time.
    After(Option<Duration>),
}

impl Client {
    pub(super) fn new(location: Location, patience: Patience) -> Result<Self, RegistryError> {
        let own = location.is_loopback();
        let trusted = certificates();
        if trusted.is_empty() && !own {
            let why = "this host has no certificates to know it by: install ca-certificates, or \
                name a file of them by SSL_CERT_FILE"
                .to_owned();
            let (what, host) = (location.to_string(), location.host.clone());
            return Err(RegistryError::Fetch { what, host, why });
        }
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::Specific(Arc::new(trusted)))
            .unversioned_rustls_crypto_provider(Arc::new(ring::default_provider()));
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .https_only(!own)
            .max_redirects(5)
            .accept_encoding("identity")
            .user_agent(concat!("gemello/", env!("CARGO_PKG_VERSION")))
            .proxy(if own { None } else { Proxy::try_from_env() })
            .timeout_resolve(Some(patience.idle))
            .timeout_connect(Some(patience.idle))
            .timeout_per_read(Some(patience.idle))
            .timeout_per_write(Some(patience.idle))
            .timeout_recv_response(Some(patience.idle * 2))
            .tls_config(tls.build());
        let agent = config.build().new_agent();
        Ok(Self { agent, location, authorization: None, patience, failed: 0 })
    }

    /// The answer to `ask`. What may be better later is tried again.
    pub(super) fn get(&mut self, ask: Ask) -> Result<Response<Body>, RegistryError> {
        loop {
            match self.attempt(ask) {
                Ok(response) => return Ok(response),
                Err(failure) => self.wait(ask, failure)?,
            }
        }
    }

    /// Something came: what fails from now on may be tried as often as at the beginning.
    pub(super) fn progressed(&mut self) {
        self.failed = 0;
    }

    /// After the answer to `ask` ended by `error`, waits for the next attempt.
    pub(super) fn cut(&mut self, ask: Ask, error: &io::Error) -> Result<(), RegistryError> {
        let why = format!("the connection was cut: {error}");
        self.wait(ask, Failure { why, again: Again::After(None) })
    }

    /// That `ask` failed for good.
    pub(super) fn failure(&self, ask: Ask, why: String) -> RegistryError {
        let what = match ask {
            Ask::Whether(_) | Ask::Manifest(_) => self.location.to_string(),
            Ask::Blob(digest, _) => format!("{digest} of {}", self.location),
        };
        RegistryError::Fetch { what, host: self.location.host.clone(), why }
    }

    fn wait(&mut self, ask: Ask, failure: Failure) -> Result<(), RegistryError> {
        let Failure { why, again } = failure;
        let Patience { tries, pause, longest, .. } = self.patience;
        self.failed += 1;
        let Again::After(said) = again else { return Err(self.failure(ask, why)) };
        let tried = matches!(ask, Ask::Whether(_)) || self.failed >= tries;
        let time = said.unwrap_or(pause * (1 << self.failed.min(6)) / 2);
        if tried || time > longest {
            let then = said.map_or("again later".into(), |it| format!("in {} s", it.as_secs()));
            return Err(self.failure(ask, format!("{why}; try it {then}")));
        }
        sleep(time);
        Ok(())
    }

    fn attempt(&mut self, ask: Ask) -> Result<Response<Body>, Failure> {
        let response = self.send(ask)?;
        if response.status() != 401 {
            return accepted(response);
        }
        let challenges = response.headers().get_all(header::WWW_AUTHENTICATE);
        let challenges = challenges.iter().filter_map(|it| it.to_str().ok());
        let known = challenges.filter_map(Challenge::parse).next();
        match known {
            Some(challenge) => self.authorize(&challenge)?,
            None => return accepted(response),
        }
        accepted(self.send(ask)?)
    }

    fn send(&self, ask: Ask) -> Result<Response<Body>, Failure> {
        let Location { host, path, .. } = &self.location;
        let scheme = if self.location.is_loopback() { "http" } else { "https" };
        let at = format!("{scheme}://{host}/v2/{path}");
        let mut request = match ask {
            Ask::Whether(name) => self.agent.head(format!("{at}/manifests/{name}")),
            Ask::Manifest(name) | Ask::Blob(name, _) => {
                let kind = if matches!(ask, Ask::Blob(..)) { "blobs" } else { "manifests" };
                self.agent.get(format!("{at}/{kind}/{name}"))
            }
        };
        match ask {
            Ask::Blob(_, 0) => {}
            Ask::Blob(_, from) => request = request.header(header::RANGE, format!("bytes={from}-")),
            _ => request = request.header(header::ACCEPT, MANIFESTS),
        }
        if let Some(value) = &self.authorization {
            request = request.header(header::AUTHORIZATION, value);
        }
        request.call().map_err(|error| unanswered(&error))
    }

    /// Gets what is to be sent with each request from now on.
    fn authorize(&mut self, challenge: &Challenge) -> Result<(), Failure> {
        let host = self.location.host.clone();
        let never = |why| Failure { why, again: Again::Never };
        let credentials = Credentials::find(&host).map_err(never)?;
        let login = || never(format!("it asks for a name and a password: docker login {host}"));
        self.authorization = Some(match challenge {
            Challenge::Basic => credentials.ok_or_else(login)?.basic(),
            Challenge::Bearer { realm, service } => {
                let scope = format!("repository:{}:pull", self.location.path);
                let mut request = self.agent.get(realm).query("scope", &scope);
                if let Some(service) = service {
                    request = request.query("service", service);
                }
                if let Some(credentials) = credentials {
                    request = request.header(header::AUTHORIZATION, credentials.basic());
                }
                let response = request.call().map_err(|error| unanswered(&error))?;
                token(accepted(response)?).map_err(never)?
            }
        });
        Ok(())
    }
}

/// Those that this host trusts.
fn certificates() -> Vec<Certificate<'static>> {
    let found = rustls_native_certs::load_native_certs();
    found.certs.iter().map(|it| Certificate::from_der(it).to_owned()).collect()
}

/// `Authorization` with the token in `response`.
fn token(response: Response<Body>) -> Result<String, String> {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(alias = "access_token")]
        token: String,
    }
    let text = read(response, ANSWER).map_err(|error| format!("no token came: {error}"))?;
    let answer: Result<Answer, _> = serde_json::from_slice(&text);
    let token = answer.map(|it| it.token).ok();
    let token = token.filter(|it| !it.is_empty() && it.bytes().all(|byte| byte.is_ascii_graphic()));
    token.map(|it| format!("Bearer {it}")).ok_or_else(|| "what came is no token".to_owned())
}

/// All of an answer, of which `most` bytes are taken.
pub(super) fn read(response: Response<Body>, most: u64) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    response.into_body().into_reader().take(most + 1).read_to_end(&mut text)?;
    if text.len() as u64 > most {
        let why = format!("it is larger than {} MiB", most >> 20);
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    Ok(text)
}

fn accepted(response: Response<Body>) -> Result<Response<Body>, Failure> {
    let status = response.status();
    if status.is_success() || status == 416 {
        return Ok(response);
    }
    let later = retry_after(response.headers());
    let said = read(response, ANSWER).map(|text| words(&text)).unwrap_or_default();
    let (why, again) = match status.as_u16() {
        401 | 403 => {
            let why = "it does not let you: the name may be wrong, or it asks for docker login";
            (why.to_owned(), Again::Never)
        }
        404 => ("it has no such image".to_owned(), Again::Never),
        429 => ("it has had too many requests".to_owned(), Again::After(later)),
        500.. => (format!("it failed ({status})"), Again::After(later)),
        _ => (format!("it answers {status}"), Again::Never),
    };
    Err(Failure { why: format!("{why}{said}"), again })
}

/// What a registry says of an error (distribution-spec, "Error codes"), fit for a terminal.
fn words(text: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Answer {
        errors: Vec<Said>,
    }
    #[derive(Deserialize)]
    struct Said {
        message: String,
    }
    let answer: Option<Answer> = serde_json::from_slice(text).ok();
    let said = answer.and_then(|it| it.errors.into_iter().next());
    said.map(|it| format!(": {}", it.message.escape_debug().take(SHOWN).collect::<String>()))
        .unwrap_or_default()
}

/// Seconds that the registry wants us to wait. Dates are not read.
fn retry_after(fields: &HeaderMap) -> Option<Duration> {
    let text = fields.get(header::RETRY_AFTER)?.to_str().ok()?;
    Some(Duration::from_secs(text.trim().parse().ok()?))
}

fn unanswered(error: &ureq::Error) -> Failure {
    use ureq::Error::{HostNotFound, Io, Protocol, RequireHttpsOnly, Timeout};
    let (why, again) = match error {
        HostNotFound => ("no such host is known; is there a network?".to_owned(), Again::Never),
        Io(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            ("nothing listens there".to_owned(), Again::Never)
        }
        Io(error) if error.kind() == io::ErrorKind::InvalidData => {
            (error.to_string(), Again::Never) // its certificate
        }
        RequireHttpsOnly(_) => ("it leads to where nothing is encrypted".to_owned(), Again::Never),
        Timeout(_) => ("it does not answer".to_owned(), Again::After(None)),
        Io(_) | Protocol(_) => (error.to_string(), Again::After(None)),
        other => (other.to_string(), Again::Never),
    };
    Failure { why, again }
}
