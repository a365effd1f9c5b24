//! Every rule of the head with what it lets through and what it refuses, and: how the bytes are cut
//! changes no verdict.

use proptest::prelude::*;

use super::Reason as R;
use super::*;

const RULES: Rules = Rules {
    max_bytes: 512,
    max_headers: 4,
};

fn accepted(head: &[u8]) -> Accepted {
    match judge(head, &RULES) {
        Verdict::Accept(accepted) => accepted,
        other => panic!("{other:?} for {}", head.escape_ascii()),
    }
}

fn refused(head: &[u8]) -> Refusal {
    match judge(head, &RULES) {
        Verdict::Refuse(refusal) => refusal,
        other => panic!("{other:?} for {}", head.escape_ascii()),
    }
}

/// A head with this request line and nothing else of note.
fn with_line(line: &str) -> Vec<u8> {
    format!("{line}\r\nHost: localhost\r\n\r\n").into_bytes()
}

/// A head with this field line (or lines) after a good `Host`.
fn with_field(field: &str) -> Vec<u8> {
    format!("POST /a HTTP/1.1\r\nHost: localhost\r\n{field}\r\n\r\n").into_bytes()
}

#[test]
fn an_accepted_head_says_where_things_are() {
    let head =
        b"POST /a/b?c=%2F HTTP/1.0\r\nhOST: shop.example:8080\r\nContent-Length:\t 12 \r\n\r\n";
    let found = accepted(head);
    assert_eq!(found.head_len, head.len());
    assert_eq!(found.content_length, 12);
    assert_eq!(&head[found.method], b"POST");
    assert_eq!(&head[found.target], b"/a/b?c=%2F");
    assert!(found.http10);
    assert!(!found.upgrade);
}

#[test]
fn bytes_after_the_head_are_not_judged() {
    let head = with_line("GET / HTTP/1.1");
    let mut bytes = head.clone();
    bytes.extend_from_slice(b"\0\n\r\xff");
    assert_eq!(accepted(&bytes), accepted(&head));
}

#[test]
fn good_request_lines_are_accepted() {
    for line in [
        "GET / HTTP/1.1",
        "GET / HTTP/1.0",
        "GET /?a=b&c HTTP/1.1",
        "get /a;b=c,d/~e/@:!$&'()*+-._ HTTP/1.1",
        "M-SEARCH // HTTP/1.1",
        "!#$%&'*+-.^_`|~09azAZ /%00%fF HTTP/1.1",
        "ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEF /a?b?c/d HTTP/1.1",
    ] {
        let _ = accepted(&with_line(line));
    }
}

#[test]
fn a_bad_request_line_is_refused() {
    for (line, reason) in [
        ("", R::EmptyFirstLine),
        ("GET /", R::RequestLine),
        ("GET", R::RequestLine),
        ("GET  / HTTP/1.1", R::RequestLine),
        ("GET /  HTTP/1.1", R::RequestLine),
        ("GET / HTTP/1.1 ", R::RequestLine),
        (" GET / HTTP/1.1", R::RequestLine),
        ("GET  HTTP/1.1", R::RequestLine),
        ("GET /a b HTTP/1.1", R::RequestLine),
        (" / HTTP/1.1", R::Method),
        ("G(T / HTTP/1.1", R::Method),
        ("GET\t/ HTTP/1.1 x", R::Method),
        ("GÉT / HTTP/1.1", R::Method),
        ("ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFG / HTTP/1.1", R::Method),
        ("CONNECT /a HTTP/1.1", R::Connect),
        ("CONNECT bank.example:443 HTTP/1.1", R::Connect),
        ("GET http://bank.example/ HTTP/1.1", R::Target),
        ("GET bank.example HTTP/1.1", R::Target),
        ("OPTIONS * HTTP/1.1", R::Target),
        ("PRI * HTTP/2.0", R::Target),
        ("GET ?a HTTP/1.1", R::Target),
        ("GET /a#b HTTP/1.1", R::Fragment),
        ("GET /% HTTP/1.1", R::PercentEncoding),
        ("GET /%4 HTTP/1.1", R::PercentEncoding),
        ("GET /%4g HTTP/1.1", R::PercentEncoding),
        ("GET /%%41 HTTP/1.1", R::PercentEncoding),
        ("GET /a\\b HTTP/1.1", R::TargetCharacter),
        ("GET /a\tb HTTP/1.1", R::TargetCharacter),
        ("GET /a[0] HTTP/1.1", R::TargetCharacter),
        ("GET /{id} HTTP/1.1", R::TargetCharacter),
        ("GET /\"a\" HTTP/1.1", R::TargetCharacter),
        ("GET /<a>^`| HTTP/1.1", R::TargetCharacter),
        ("GET /é HTTP/1.1", R::TargetCharacter),
        ("GET / HTTP/1.2", R::Version),
        ("GET / HTTP/2.0", R::Version),
        ("GET / HTTP/1.10", R::Version),
        ("GET / http/1.1", R::Version),
        ("GET / HTTP/1.1\t", R::Version),
    ] {
        assert_eq!(
            refused(&with_line(line)),
            Refusal::Malformed(reason),
            "{line:?}"
        );
    }
}

#[test]
fn good_field_lines_are_accepted() {
    for field in [
        "A:",
        "A: \t ",
        "a:b",
        "!#$%&'*+-.^_`|~9aZ: x",
        "A: b: c\td \"(,)\\",
        "A: \u{e9}",
        "Content-Length: 0",
        "content-length:9999999999999999999",
        "Expect: 100-continue",
    ] {
        let _ = accepted(&with_field(field));
    }
    assert_eq!(accepted(&with_field("Content-Length: 0")).content_length, 0);
    let largest = accepted(&with_field("Content-Length: 9999999999999999999"));
    assert_eq!(largest.content_length, 9_999_999_999_999_999_999);
}

#[test]
fn a_bad_field_line_is_refused() {
    for (field, reason) in [
        ("A", R::FieldLine),
        (": b", R::FieldName),
        ("A : b", R::FieldName),
        ("A\t: b", R::FieldName),
        ("A B: c", R::FieldName),
        ("A(: c", R::FieldName),
        ("É: c", R::FieldName),
        ("A: b\r\n c", R::Folding),
        ("A: b\r\n\tc", R::Folding),
        (" A: b", R::Folding),
        ("A: b\0", R::Control),
        ("A: \u{7f}", R::Control),
        ("A: \u{1b}[0m", R::Control),
        ("A\u{b}: b", R::Control),
        ("A: b\nC: d", R::BareLineFeed),
        ("A: b\rC: d", R::BareCarriageReturn),
        ("A: b\r\r\nC: d", R::BareCarriageReturn),
        ("Host: localhost", R::HostRepeated),
        ("hOST: other", R::HostRepeated),
        ("Content-Length:", R::ContentLengthValue),
        ("Content-Length: +1", R::ContentLengthValue),
        ("Content-Length: -1", R::ContentLengthValue),
        ("Content-Length: 1, 1", R::ContentLengthValue),
        ("Content-Length: 1 1", R::ContentLengthValue),
        ("Content-Length: 0x1", R::ContentLengthValue),
        ("Content-Length: 1.0", R::ContentLengthValue),
        ("Content-Length: 01", R::ContentLengthValue),
        ("Content-Length: 00", R::ContentLengthValue),
        ("Content-Length: \u{661}", R::ContentLengthValue),
        (
            "Content-Length: 10000000000000000000",
            R::ContentLengthValue,
        ),
        (
            "Content-Length: 1\r\ncontent-length: 1",
            R::ContentLengthRepeated,
        ),
        (
            "Content-Length: 1\r\nContent-Length: 2",
            R::ContentLengthRepeated,
        ),
    ] {
        assert_eq!(
            refused(&with_field(field)),
            Refusal::Malformed(reason),
            "{field:?}"
        );
    }
}

#[test]
fn a_host_is_wanted_and_must_look_like_one() {
    for host in [
        "a",
        "a.b-c_d:1",
        "127.0.0.1:65535",
        "[::1]",
        "[::ffff:1.2.3.4]:80",
        "A",
        "0",
    ] {
        let _ = accepted(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes());
    }
    for host in [
        "", " ", ":80", "a:", "a:b", "a:123456", "a:1:2", "::1", "[::1", "[]", "[::1]a", "[g]",
        "[::1]:", "a b", "a,b", "a@b", "a/b", "a%41", "a?b", "é",
    ] {
        let head = format!("GET / HTTP/1.1\r\nHost:{host}\r\n\r\n");
        assert_eq!(
            refused(head.as_bytes()),
            Refusal::Malformed(R::HostValue),
            "{host:?}"
        );
    }
    for version in ["HTTP/1.1", "HTTP/1.0"] {
        let head = format!("GET / {version}\r\nA: b\r\n\r\n");
        assert_eq!(refused(head.as_bytes()), Refusal::Malformed(R::HostMissing));
    }
}

#[test]
fn a_transfer_encoding_wants_a_length_instead() {
    for field in [
        "Transfer-Encoding: chunked",
        "transfer-encoding:identity",
        "Transfer-Encoding:",
    ] {
        assert_eq!(
            refused(&with_field(field)),
            Refusal::LengthRequired,
            "{field:?}"
        );
    }
    for field in [
        "Transfer-Encoding: chunked\r\nContent-Length: 3",
        "Content-Length: 3\r\nTransfer-Encoding: \tchunked",
    ] {
        assert_eq!(
            refused(&with_field(field)),
            Refusal::Malformed(R::TwoLengths),
            "{field:?}"
        );
    }
}

#[test]
fn a_head_at_the_limit_is_accepted_and_one_beyond_is_too_large() {
    let frame = with_field("A: ").len();
    let at_limit = with_field(&format!("A: {}", "b".repeat(RULES.max_bytes - frame)));
    assert_eq!(accepted(&at_limit).head_len, RULES.max_bytes);
    let beyond = with_field(&format!("A: {}", "b".repeat(RULES.max_bytes - frame + 1)));
    assert_eq!(refused(&beyond), Refusal::TooLarge);

    let _ = accepted(&with_field("A: 1\r\nB: 2\r\nC: 3"));
    assert_eq!(
        refused(&with_field("A: 1\r\nB: 2\r\nC: 3\r\nD: 4")),
        Refusal::TooLarge
    );
}

#[test]
fn no_rules_let_a_target_or_name_pass_that_the_library_would_refuse() {
    let rules = Rules {
        max_bytes: 1 << 20,
        max_headers: 4,
    };
    for (length, refused) in [(MAX_TARGET, false), (MAX_TARGET + 1, true)] {
        let head = with_line(&format!("GET /{} HTTP/1.1", "a".repeat(length - 1)));
        let verdict = judge(&head, &rules);
        assert_eq!(
            verdict == Verdict::Refuse(Refusal::TooLarge),
            refused,
            "{length}"
        );
    }
    for (length, refused) in [(MAX_NAME, false), (MAX_NAME + 1, true)] {
        let verdict = judge(&with_field(&format!("{}: b", "a".repeat(length))), &rules);
        assert_eq!(
            verdict == Verdict::Refuse(Refusal::TooLarge),
            refused,
            "{length}"
        );
    }
}

#[test]
fn of_several_faults_malformed_decides_then_size_then_the_missing_length() {
    let many = "A: 1\r\nB: 2\r\nC: 3\r\nD: 4";
    let both = format!("Transfer-Encoding: chunked\r\n{many}");
    assert_eq!(refused(&with_field(&both)), Refusal::TooLarge);
    let all = format!("{both}\r\nE : 5");
    assert_eq!(refused(&with_field(&all)), Refusal::Malformed(R::FieldName));
    let no_host = format!("GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n{many}\r\n\r\n");
    assert_eq!(
        refused(no_host.as_bytes()),
        Refusal::Malformed(R::HostMissing)
    );
}

#[test]
fn what_can_never_become_good_is_refused_before_the_end() {
    for (bytes, reason) in [
        (&b"\x16\x03\x01"[..], R::Control), // a TLS handshake
        (b"\n", R::BareLineFeed),
        (b"\r\n", R::EmptyFirstLine),
        (b"\rG", R::BareCarriageReturn),
        (b"GET / HTTP/1.1\n", R::BareLineFeed),
        (b"GET /a#b HTTP/1.1\r\n", R::Fragment),
        (b"GET / HTTP/1.1\r\nA\0", R::Control),
    ] {
        assert_eq!(
            judge(bytes, &RULES),
            malformed(reason),
            "{}",
            bytes.escape_ascii()
        );
    }
    for bytes in [
        &b""[..],
        b"GET",
        b"GET / HTTP/1.1\r\nA : b",
        b"GET / HTTP/1.1\r\nHost: a\r\n\r",
    ] {
        assert_eq!(
            judge(bytes, &RULES),
            Verdict::Incomplete,
            "a line is judged when complete"
        );
    }
}

#[test]
fn masking_renames_upgrade_and_nothing_else() {
    let mut head = with_field("uPGRADE: h2c, x\r\nUpgrades: 1\r\nA: upgrade:");
    assert!(accepted(&head).upgrade);
    mask_upgrade(&mut head);
    assert_eq!(
        head,
        with_field("Ignored: h2c, x\r\nUpgrades: 1\r\nA: upgrade:")
    );
    assert!(!accepted(&head).upgrade);
}

/// Heads near the border: good ones with a few bytes changed, and pieces in any order.
fn near_heads() -> impl Strategy<Value = Vec<u8>> {
    let pieces = prop::sample::select(vec![
        "GET / HTTP/1.1\r\n",
        "POST /a%20?b HTTP/1.0\r\n",
        "Host: a\r\n",
        "Content-Length: 3\r\n",
        "Transfer-Encoding: chunked\r\n",
        "A: b\r\n",
        "\r\n",
        " ",
        "\t",
        "\n",
        "\r",
        "\0",
        ":",
        "#",
        "Upgrade: x\r\n",
        "Content-Length: 3, 3\r\n",
        "\u{e9}",
        "abcdefghijklmnopqrstuvwxyz",
    ]);
    let body = prop::collection::vec(pieces, 0..12).prop_map(|parts| parts.concat());
    (any::<bool>(), body).prop_map(|(good_start, rest)| {
        let start = if good_start {
            "GET / HTTP/1.1\r\nHost: a\r\n"
        } else {
            ""
        };
        format!("{start}{rest}").into_bytes()
    })
}

proptest! {
    #[test]
    fn a_verdict_does_not_depend_on_how_the_bytes_were_cut(
        bytes in near_heads(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        each_byte in any::<bool>(),
        max_bytes in 1_usize..200,
    ) {
        let rules = Rules { max_bytes, max_headers: 3 };
        let mut ends: Vec<usize> = if each_byte {
            (0..=bytes.len()).collect()
        } else {
            cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect()
        };
        ends.push(bytes.len());
        ends.sort_unstable();
        let mut scanner = Scanner::default();
        let mut verdict = Verdict::Incomplete;
        for end in ends {
            verdict = scanner.scan(&bytes[..end], &rules);
            if verdict != Verdict::Incomplete {
                break;
            }
        }
        prop_assert_eq!(verdict, judge(&bytes, &rules));
    }

    #[test]
    fn any_bytes_are_judged_without_a_panic_and_never_beyond_the_limit(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let rules = Rules { max_bytes: 256, max_headers: 3 };
        if let Verdict::Accept(found) = judge(&bytes, &rules) {
            prop_assert!(found.head_len <= rules.max_bytes);
        }
    }
}
