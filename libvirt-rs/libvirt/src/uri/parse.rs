//! Takes a URI apart (RFC 3986, with libvirt's own rules on top).

use std::net::Ipv6Addr;

use percent_encoding::percent_decode_str;

use super::{
    Error, Transport, Uri,
    limits::{MAX_PARAMETERS, MAX_URI},
    parameters::{Parameter, Settings},
};

pub(super) fn uri(text: &str) -> Result<Uri, Error> {
    if text.is_empty() {
        return Ok(Uri::default());
    }
    if text.len() > MAX_URI {
        return Err(Error::TooLong(text.len()));
    }
    let forbidden = |(_, c): &(usize, char)| c.is_control() || c.is_whitespace();
    if let Some((at, character)) = text.char_indices().find(forbidden) {
        return Err(Error::Character { character, at });
    }
    if text.contains('#') {
        return Err(Error::Fragment);
    }
    let (rest, query) = text.split_once('?').unwrap_or((text, ""));
    let (scheme, rest) = rest
        .split_once(':')
        .ok_or_else(|| Error::NoScheme(without_user(rest)))?;
    let (driver, transport) = self::scheme(scheme)?;
    let Some(rest) = rest.strip_prefix("//") else {
        return Err(Error::NoAuthority {
            scheme: scheme.to_owned(),
            path: without_user(rest.trim_start_matches('/')),
        });
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let Authority { user, host, port } = self::authority(authority)?;
    if let (Some(Transport::Unix), Some(host)) = (transport, &host) {
        return Err(Error::UnixWithHost {
            driver,
            host: host.clone(),
        });
    }
    let parameters = parameters(query)?;
    Ok(Uri {
        driver,
        transport,
        user,
        host,
        port,
        path: decode(path, "path")?,
        settings: Settings::of(&parameters)?,
        parameters,
    })
}

/// What of a text that is no URI may be shown: nothing before an `@`, which may be a password.
fn without_user(text: &str) -> String {
    let (_, shown) = text.rsplit_once('@').unwrap_or(("", text));
    shown.to_owned()
}

fn scheme(scheme: &str) -> Result<(String, Option<Transport>), Error> {
    let (driver, transport) = match scheme.split_once('+') {
        Some((driver, transport)) => (driver, Some(transport)),
        None => (scheme, None),
    };
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
    if !driver.starts_with(|c: char| c.is_ascii_alphabetic()) || !driver.chars().all(allowed) {
        return Err(Error::Driver(without_user(driver)));
    }
    let transport = match transport {
        None => None,
        Some(name) => Some(
            Transport::ALL
                .into_iter()
                .find(|known| known.name().eq_ignore_ascii_case(name))
                .ok_or_else(|| Error::Transport(without_user(name)))?,
        ),
    };
    Ok((driver.to_ascii_lowercase(), transport))
}

#[derive(Default)]
struct Authority {
    user: Option<String>,
    host: Option<String>,
    port: Option<u16>,
}

fn authority(text: &str) -> Result<Authority, Error> {
    let (user, rest) = match text.rsplit_once('@') {
        Some((user, rest)) => (Some(user), rest),
        None => (None, text),
    };
    let (host, port) = match rest.strip_prefix('[') {
        Some(inner) => {
            let (address, after) = inner
                .split_once(']')
                .ok_or_else(|| Error::Host(rest.to_owned()))?;
            let port = match after {
                "" => None,
                _ => Some(
                    after
                        .strip_prefix(':')
                        .ok_or_else(|| Error::Host(rest.to_owned()))?,
                ),
            };
            (Some(ipv6(address)?), port)
        }
        None => match rest.split_once(':') {
            // More than one colon: an IPv6 address that lacks its brackets.
            Some((_, port)) if port.contains(':') => return Err(Error::Host(rest.to_owned())),
            Some((host, port)) => (name(host)?, Some(port)),
            None => (name(rest)?, None),
        },
    };
    if host.is_none() && (user.is_some() || port.is_some()) {
        let what = if user.is_some() { "a user" } else { "a port" };
        return Err(Error::NoHost(what));
    }
    Ok(Authority {
        user: user.map(self::user).transpose()?,
        host,
        port: port.map(self::port).transpose()?,
    })
}

fn user(text: &str) -> Result<String, Error> {
    if text.contains(':') {
        return Err(Error::Password);
    }
    let user = decode(text, "user")?;
    if user.is_empty() {
        return Err(Error::NoHost("an empty user"));
    }
    Ok(user)
}

/// A host's name or IPv4 address. What may stand in it is little, for it also goes to `ssh` as an argument.
fn name(text: &str) -> Result<Option<String>, Error> {
    let host = decode(text, "host")?;
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | '~' | '+');
    if host.starts_with('-') || !host.chars().all(allowed) {
        return Err(Error::Host(host));
    }
    Ok((!host.is_empty()).then_some(host))
}

/// What stands in brackets: an address, perhaps with the zone that a link-local one needs (RFC 6874: `fe80::1%25eth0`).
fn ipv6(text: &str) -> Result<String, Error> {
    let host = decode(text, "host")?;
    let (address, zone) = match host.split_once('%') {
        Some((address, zone)) => (address, Some(zone)),
        None => (host.as_str(), None),
    };
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    let zone = zone.is_none_or(|zone| !zone.is_empty() && zone.chars().all(allowed));
    if !zone || address.parse::<Ipv6Addr>().is_err() {
        return Err(Error::Host(format!("[{text}]")));
    }
    Ok(host)
}

fn port(text: &str) -> Result<u16, Error> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(port) if digits && port != 0 => Ok(port),
        _ => Err(Error::Port(text.to_owned())),
    }
}

fn parameters(query: &str) -> Result<Vec<Parameter>, Error> {
    let mut parameters = Vec::new();
    for part in query.split(['&', ';']) {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        if name.is_empty() {
            continue;
        }
        if parameters.len() == MAX_PARAMETERS {
            return Err(Error::TooManyParameters);
        }
        parameters.push(Parameter {
            name: decode(name, "query")?,
            value: decode(value, "query")?,
        });
    }
    Ok(parameters)
}

fn decode(text: &str, part: &'static str) -> Result<String, Error> {
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let mut hex = || bytes.next().is_some_and(|byte| byte.is_ascii_hexdigit());
        if byte == b'%' && !(hex() && hex()) {
            return Err(Error::Percent { part });
        }
    }
    match percent_decode_str(text).decode_utf8() {
        Ok(text) if !text.contains('\0') => Ok(text.into_owned()),
        _ => Err(Error::Text { part }),
    }
}
