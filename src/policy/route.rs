//! The route allow-list: an exact method and an exact path, nothing decoded, everything else denied.

use std::fmt;
use std::sync::Arc;

use crate::policy::operation::Rules;

/// A method that a route may name. `HEAD`, `CONNECT`, `TRACE` and the rest are not for a bank's API.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Method {
    /// `DELETE`
    Delete,
    /// `GET`
    Get,
    /// `PATCH`
    Patch,
    /// `POST`
    Post,
    /// `PUT`
    Put,
}

impl Method {
    /// Reads the method as it stands in a request line or in the config: case counts (RFC 9110 section 9.1).
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "DELETE" => Self::Delete,
            "GET" => Self::Get,
            "PATCH" => Self::Patch,
            "POST" => Self::Post,
            "PUT" => Self::Put,
            _ => return None,
        })
    }

    /// The method's name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delete => "DELETE",
            Self::Get => "GET",
            Self::Patch => "PATCH",
            Self::Post => "POST",
            Self::Put => "PUT",
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which connection to the bank a route uses.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Connection {
    /// A new connection for each request: no race with a bank that closes an idle one.
    Fresh,
    /// A kept-alive connection where there is one.
    #[default]
    Pooled,
}

/// One allowed method and path of a bank.
#[derive(Clone, Debug)]
pub struct Route {
    /// The name in records, metrics and problems: paths hold ids, names do not.
    pub name: String,
    /// The exact method.
    pub method: Method,
    /// The path, segment by segment.
    pub path: PathPattern,
    /// Whether a query may follow the path.
    pub query: bool,
    /// Pooled or fresh.
    pub connection: Connection,
    /// How its requests are guarded, if they are.
    pub rules: Option<Arc<Rules>>,
}

/// A path pattern: literal segments and `{id}`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PathPattern(Vec<Segment>);

#[derive(Clone, Debug, Eq, PartialEq)]
enum Segment {
    Literal(String),
    Id,
}

/// Why a path in the config is no pattern.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PatternError {
    /// It does not start with `/`.
    #[error("a path starts with `/`")]
    NotAbsolute,
    /// An empty segment, `.` or `..`.
    #[error("a path has no empty, `.` or `..` segment")]
    OddSegment,
    /// A character outside `[A-Za-z0-9._~-]`: percent signs and the like are refused, since nothing is decoded.
    #[error("a path segment is `{{id}}` or letters, digits and `._~-`")]
    OddCharacter,
}

/// The longest value that `{id}` matches.
const ID_MAX: usize = 64;

impl PathPattern {
    /// Reads a pattern such as `/installment/{id}`.
    ///
    /// # Errors
    /// [`PatternError`] says which rule the text breaks.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let rest = text.strip_prefix('/').ok_or(PatternError::NotAbsolute)?;
        if rest.is_empty() {
            return Ok(Self(Vec::new()));
        }
        rest.split('/')
            .map(Segment::parse)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Whether the raw path of a request is this one. Nothing is decoded or normalised before the comparison.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        let Some(rest) = path.strip_prefix('/') else {
            return false;
        };
        if self.0.is_empty() || rest.is_empty() {
            return self.0.is_empty() && rest.is_empty();
        }
        let mut given = rest.split('/');
        self.0
            .iter()
            .all(|want| given.next().is_some_and(|have| want.matches(have)))
            && given.next().is_none()
    }

    /// Whether some path matches both: two such routes of one method would hide each other.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.0.len() == other.0.len()
            && self.0.iter().zip(&other.0).all(|(a, b)| match (a, b) {
                (Segment::Literal(a), Segment::Literal(b)) => a == b,
                (Segment::Id, Segment::Literal(text)) | (Segment::Literal(text), Segment::Id) => {
                    is_id(text)
                }
                (Segment::Id, Segment::Id) => true,
            })
    }
}

impl Segment {
    fn parse(text: &str) -> Result<Self, PatternError> {
        match text {
            "" | "." | ".." => Err(PatternError::OddSegment),
            "{id}" => Ok(Self::Id),
            _ if text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"._~-".contains(&b)) =>
            {
                Ok(Self::Literal(text.to_owned()))
            }
            _ => Err(PatternError::OddCharacter),
        }
    }

    fn matches(&self, given: &str) -> bool {
        match self {
            Self::Literal(want) => want == given,
            Self::Id => is_id(given),
        }
    }
}

fn is_id(text: &str) -> bool {
    (1..=ID_MAX).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// What became of a request's method and path.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub enum Verdict<'r> {
    /// This route takes it.
    Allow(&'r Route),
    /// The path is a route's, the method is not.
    MethodNotAllowed,
    /// The route takes no query.
    QueryNotAllowed(&'r Route),
    /// No route has this path.
    NotFound,
}

/// Finds the route of a request. `query` says whether the target had a `?`.
pub fn find<'r>(routes: &'r [Route], method: &str, path: &str, query: bool) -> Verdict<'r> {
    let mut path_known = false;
    for route in routes.iter().filter(|route| route.path.matches(path)) {
        path_known = true;
        if route.method.as_str() == method {
            if query && !route.query {
                return Verdict::QueryNotAllowed(route);
            }
            return Verdict::Allow(route);
        }
    }
    if path_known {
        Verdict::MethodNotAllowed
    } else {
        Verdict::NotFound
    }
}

/// The `Allow` header of a 405 for this path (RFC 9110 section 15.5.6).
#[must_use]
pub fn allowed_methods(routes: &[Route], path: &str) -> String {
    let mut methods: Vec<&str> = routes
        .iter()
        .filter(|r| r.path.matches(path))
        .map(|r| r.method.as_str())
        .collect();
    methods.sort_unstable();
    methods.dedup();
    methods.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(name: &str, method: Method, path: &str) -> Route {
        Route {
            name: name.to_owned(),
            method,
            path: PathPattern::parse(path).unwrap(),
            query: name == "search",
            rules: None,
            connection: Connection::Pooled,
        }
    }

    fn shop() -> Vec<Route> {
        vec![
            route("create", Method::Post, "/installment/create"),
            route("status", Method::Get, "/installment/{id}"),
            route("search", Method::Get, "/search"),
        ]
    }

    #[test]
    fn only_the_exact_method_and_path_are_allowed() {
        let routes = shop();
        let name = |method: &str, path: &str, query: bool| match find(&routes, method, path, query)
        {
            Verdict::Allow(route) => route.name.clone(),
            Verdict::MethodNotAllowed => "405".to_owned(),
            Verdict::QueryNotAllowed(_) => "query".to_owned(),
            Verdict::NotFound => "404".to_owned(),
        };
        assert_eq!(name("POST", "/installment/create", false), "create");
        assert_eq!(name("post", "/installment/create", false), "405");
        assert_eq!(name("GET", "/installment/s-1_A", false), "status");
        assert_eq!(name("GET", "/installment/s-1?", false), "404");
        assert_eq!(name("GET", "/installment/s-1", true), "query");
        assert_eq!(name("GET", "/search", true), "search");
        for path in [
            "/installment/create/",
            "//installment/create",
            "/installment/../create",
            "/",
            "",
            "/installment/cre%61te",
            "/INSTALLMENT/create",
            "/installment/a/b",
            "/installment/a.b",
            "installment/create",
            "/installment/",
            "/installment",
        ] {
            assert_eq!(name("POST", path, false), "404", "{path}");
        }
        let long = format!("/installment/{}", "a".repeat(65));
        assert_eq!(name("GET", &long, false), "404");
    }

    #[test]
    fn a_405_lists_what_the_path_takes() {
        assert_eq!(allowed_methods(&shop(), "/installment/create"), "GET, POST");
        assert_eq!(allowed_methods(&shop(), "/installment/s1"), "GET");
    }

    #[test]
    fn an_odd_pattern_is_refused() {
        assert_eq!(PathPattern::parse("x"), Err(PatternError::NotAbsolute));
        assert_eq!(PathPattern::parse("/a//b"), Err(PatternError::OddSegment));
        assert_eq!(PathPattern::parse("/a/.."), Err(PatternError::OddSegment));
        assert_eq!(
            PathPattern::parse("/a%20b"),
            Err(PatternError::OddCharacter)
        );
        assert_eq!(
            PathPattern::parse("/{name}"),
            Err(PatternError::OddCharacter)
        );
        assert!(PathPattern::parse("/").unwrap().matches("/"));
    }

    #[test]
    fn overlapping_patterns_are_seen() {
        let pattern = |text| PathPattern::parse(text).unwrap();
        assert!(pattern("/a/{id}").overlaps(&pattern("/a/b")));
        assert!(pattern("/a/{id}").overlaps(&pattern("/a/{id}")));
        assert!(!pattern("/a/{id}").overlaps(&pattern("/a/b.c")));
        assert!(!pattern("/a/{id}").overlaps(&pattern("/a")));
    }
}
