//! What a registry asks for before it answers: the field `WWW-Authenticate` (RFC 9110, 11.6.1).

/// A way to say who asks.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// A name and a password with each request (RFC 7617).
    Basic,
    /// A token of the server at `realm` (RFC 6750; docker's "Token Authentication").
    Bearer { realm: String, service: Option<String> },
}

impl Challenge {
    /// What `field` asks for, if it is something that we know.
    pub(super) fn parse(field: &str) -> Option<Self> {
        let (scheme, rest) = field.trim().split_once(' ').unwrap_or((field.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let all = parameters(rest);
        let find = |name: &str| {
            let found = all.iter().find(|(it, _)| it.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.clone())
        };
        Some(Self::Bearer { realm: find("realm")?, service: find("service") })
    }
}

/// `name=value` or `name="value"`, with commas between them.
fn parameters(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((name, after)) = rest.split_once('=') {
        let name = name.trim_matches([' ', ',', '\t']).to_owned();
        let (value, left) = match after.strip_prefix('"') {
            Some(quoted) => unquoted(quoted),
            None => {
                let (value, left) = after.split_once(',').unwrap_or((after, ""));
                (value.trim().to_owned(), left)
            }
        };
        found.push((name, value));
        rest = left;
    }
    found
}

/// The text up to the next quotation mark, and what follows that.
fn unquoted(text: &str) -> (String, &str) {
    let (mut value, mut chars) = (String::new(), text.chars());
    while let Some(char) = chars.next() {
        match char {
            '"' => break,
            '\\' => value.extend(chars.next()),
            other => value.push(other),
        }
    }
    (value, chars.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>) -> Option<Challenge> {
        Some(Challenge::Bearer { realm: realm.into(), service: service.map(Into::into) })
    }

    #[test]
    fn challenges_are_read() {
        let parse = Challenge::parse;
        assert_eq!(parse("Basic realm=\"x\""), Some(Challenge::Basic));
        let usual = "Bearer realm=\"https://a/t\",service=\"s, \\\"x\",scope=\"repository:b:pull\"";
        assert_eq!(parse(usual), bearer("https://a/t", Some("s, \"x")));
        assert_eq!(parse("bearer error=x , Realm=r"), bearer("r", None));
        for other in ["", "Bearer", "Bearer service=x", "Digest realm=x", "Bearer realm", "\""] {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}
