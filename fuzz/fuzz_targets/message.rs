//! A template, a head and a body: what parses is written back the same, and the body or its digest is in the message.
#![no_main]

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use libfuzzer_sys::fuzz_target;
use priorgate::policy::signature::{Head, Part, Template};

fuzz_target!(|input: (Vec<&str>, &str, Vec<(&[u8], &[u8])>, &[u8])| {
    let (parts, path, lines, body) = input;
    let Ok(template) = Template::parse(&parts) else {
        return;
    };
    let written: Vec<String> = template.parts().iter().map(ToString::to_string).collect();
    assert_eq!(Template::parse(&written).as_ref(), Ok(&template));
    let mut headers = HeaderMap::new();
    for (name, value) in lines.into_iter().take(32) {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            headers.append(name, value);
        }
    }
    let head = Head { method: &Method::POST, path, headers: &headers };
    let _ = template.runs_together(None);
    match template.build(&head, body) {
        Ok(message) => {
            if template.parts().contains(&Part::Body) && !body.is_empty() {
                assert!(message.windows(body.len()).any(|window| window == body));
            }
            assert!(!message.is_empty() || template.parts().iter().all(|part| *part != Part::BodySha256));
        }
        Err(_) => {
            let twice_or_never = |part: &Part| match part {
                Part::Header(name) => headers.get_all(name).iter().count() != 1,
                _ => false,
            };
            assert!(template.parts().iter().any(twice_or_never));
        }
    }
});
