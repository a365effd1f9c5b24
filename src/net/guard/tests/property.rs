//! For any bytes, however they are cut: what the service sees is what `policy::head` says of them.

use std::future::Future;

use proptest::prelude::*;

use super::*;
use crate::policy::head::judge;

/// What the service must see of these bytes, followed by the end of the stream, if no request among
/// them ends the connection.
fn expected(mut bytes: &[u8], rules: &Rules) -> Vec<Seen> {
    let mut expected = Vec::new();
    while !bytes.is_empty() {
        let accepted = match judge(bytes, rules) {
            Verdict::Accept(accepted) => accepted,
            Verdict::Refuse(refusal) => {
                expected.push(Seen::Refused(Refusal::Head(refusal)));
                break;
            }
            Verdict::Incomplete => {
                expected.push(Seen::Refused(Refusal::Incomplete));
                break;
            }
        };
        let text =
            |range: std::ops::Range<usize>| String::from_utf8(bytes[range].to_vec()).unwrap();
        let (method, target) = (text(accepted.method), text(accepted.target));
        let rest = &bytes[accepted.head_len..];
        let length = usize::try_from(accepted.content_length).unwrap();
        let Some((body, rest)) = rest.split_at_checked(length) else {
            expected.push(Seen::Cut { method, target });
            break;
        };
        bytes = rest;
        let body = body.to_vec();
        expected.push(Seen::Whole {
            method,
            target,
            body,
        });
    }
    expected
}

/// Cuts the bytes at these places.
fn cut(bytes: &[u8], cuts: &[prop::sample::Index]) -> Vec<Vec<u8>> {
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    ends.extend([0, bytes.len()]);
    ends.sort_unstable();
    ends.windows(2)
        .map(|pair| bytes[pair[0]..pair[1]].to_vec())
        .collect()
}

fn in_paused_time<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(future)
}

/// Well-formed requests that keep the connection: odd in every way that the rules allow.
fn request() -> impl Strategy<Value = Vec<u8>> {
    let method = "[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}".prop_filter("CONNECT", |m| m != "CONNECT");
    let target = "/([a-z0-9._~!$&'()*+,;=:@/?-]|%[0-9a-fA-F]{2}){0,40}"
        .prop_filter("the service's own", |target| {
            target != "/early" && target != "/large"
        });
    let field = "X[!#$%&'*+.^_`|~0-9A-Za-z-]{0,20}:[ \t]{0,2}[ -~\t\u{80}-\u{ff}]{0,30}[ \t]{0,2}";
    let known = prop::sample::select(vec![
        "Upgrade: h2c",
        "upgrade:websocket",
        "Connection: keep-alive",
        "Connection: Upgrade",
        "Expect: 100-continue",
        "Expect: 200-ok",
        "TE: trailers",
        "Trailer: x",
        "Cookie: a=b",
    ]);
    let fields = prop::collection::vec(prop_oneof![field, known.prop_map(String::from)], 0..5);
    let body = prop_oneof![
        Just(None),
        prop::collection::vec(any::<u8>(), 0..50).prop_map(Some),
        prop::collection::vec(any::<u8>(), 5000..9000).prop_map(Some),
    ];
    (method, target, fields, body).prop_map(|(method, target, fields, body)| {
        let mut head = format!("{method} {target} HTTP/1.1\r\nhost: [::1]:80\r\n");
        for field in fields {
            head.push_str(&field);
            head.push_str("\r\n");
        }
        if let Some(body) = &body {
            head.push_str(&format!("cOntent-lEngth:{}\r\n", body.len()));
        }
        head.push_str("\r\n");
        [head.into_bytes(), body.unwrap_or_default()].concat()
    })
}

/// What an attacker changes in a request.
fn mutation() -> impl Strategy<Value = (prop::sample::Index, usize, Vec<u8>)> {
    let piece = prop_oneof![
        prop::sample::select(vec![
            "\r\n",
            "\n",
            "\r",
            "\0",
            " ",
            "\t",
            ":",
            "\r\n ",
            "\r\n\r\n",
            "HTTP/1.0",
            "HTTP/0.9",
            "#",
            "Host: a\r\n",
            "\r\nTransfer-Encoding: chunked",
            "\r\nContent-Length: 3",
            "\r\nFoo : b",
            "Connection: close\r\n",
            "\r\nGET http://a/ HTTP/1.1",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            "CONNECT",
            "HEAD /a HTTP/1.1\r\nHost: a\r\n\r\n",
            "\u{e9}",
            "\u{1b}",
            "%",
            "%zz",
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
        prop::collection::vec(any::<u8>(), 0..3),
        prop::sample::select(vec![600_usize, 2000]).prop_map(|length| vec![b'a'; length]),
    ];
    (any::<prop::sample::Index>(), 0_usize..4, piece)
}

proptest! {
    #[test]
    fn what_is_accepted_hyper_reads_in_the_same_way_and_serves_once_each_and_in_order(
        requests in prop::collection::vec(request(), 1..4),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        pipe in prop::sample::select(vec![7_usize, 1000, 1 << 16]),
    ) {
        let bytes = requests.concat();
        let expected = expected(&bytes, &SETTINGS.rules);
        prop_assert_eq!(expected.len(), requests.len(), "{}", bytes.escape_ascii());
        let (seen, received) = in_paused_time(exchange(cut(&bytes, &cuts), pipe));
        prop_assert_eq!(seen, expected);
        prop_assert_eq!(received.matches(MARK).count(), requests.len());
    }

    #[test]
    fn whatever_is_sent_hyper_never_answers_by_itself(
        requests in prop::collection::vec(request(), 1..3),
        mutations in prop::collection::vec(mutation(), 1..4),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
    ) {
        let mut bytes = requests.concat();
        for (at, gone, piece) in mutations {
            let start = at.index(bytes.len() + 1);
            let end = (start + gone).min(bytes.len());
            bytes.splice(start..end, piece);
        }
        let mut expected = expected(&bytes, &SETTINGS.rules);
        let (seen, received) = in_paused_time(exchange(cut(&bytes, &cuts), 1 << 16));
        // A request that closes the connection hides the ones after it; nothing else may be
        // missing.
        prop_assert!(!seen.is_empty() || bytes.is_empty());
        expected.truncate(seen.len());
        prop_assert_eq!(&seen, &expected, "{}", bytes.escape_ascii());
        let continued = received.matches("HTTP/1.1 100 Continue\r\n\r\n").count();
        let answers = received.matches("HTTP/1.").count() - continued;
        prop_assert_eq!(answers, seen.len(), "{}", received);
        prop_assert_eq!(answers, received.matches(MARK).count(), "{}", received);
    }
}
