//! The shop's address, made fit for two headers: where to send the customer, and what the page's
//! policy must allow for that.

use std::fmt::Write as _;

/// Where the customer goes back to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Back {
    /// For `form-action`.
    pub(super) origin: String,
    /// For `Location`.
    pub(super) location: String,
}

impl Back {
    /// `None` for an address whose host is not plain ASCII, or that hides it behind a user's name:
    /// no policy could name it, and then the customer gets a link instead.
    pub(super) fn read(url: &str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte);
        let is_web = matches!(scheme, "http" | "https");
        if !is_web || authority.is_empty() || !authority.bytes().all(plain) {
            return None;
        }
        let mut location = String::with_capacity(url.len());
        for byte in url.bytes() {
            if byte.is_ascii_graphic() {
                location.push(char::from(byte));
            } else {
                // Writing to a String cannot fail.
                let _ = write!(location, "%{byte:02X}");
            }
        }
        Some(Self {
            origin: format!("{scheme}://{authority}"),
            location,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_an_origin_and_a_location_of_visible_characters() {
        let back = Back::read("https://shop.example:8443/заказ 7?a=b&c#d").unwrap();
        assert_eq!(back.origin, "https://shop.example:8443");
        assert_eq!(
            back.location,
            "https://shop.example:8443/%D0%B7%D0%B0%D0%BA%D0%B0%D0%B7%207?a=b&c#d"
        );
        assert_eq!(
            Back::read("http://[::1]:80").unwrap().origin,
            "http://[::1]:80"
        );
    }

    #[test]
    fn what_no_policy_can_name_is_no_way_back() {
        for url in [
            "https://магазин.бел/",
            "https://user@shop.example/",
            "https://shop.example;script-src/",
            "https://a b/",
            "https:///x",
            "javascript:alert(1)",
            "ftp://shop.example/",
        ] {
            assert_eq!(Back::read(url), None, "{url}");
        }
    }
}
