//! The bank's page, as a browser without scripts uses it.

use super::*;

/// A bank whose sessions wait for their customers, and whose callbacks reach nobody.
async fn patient() -> Sandbox {
    let nowhere = CallbackUrl::tcp("127.0.0.1:1".parse().unwrap(), "/").unwrap();
    let options = Options {
        auto_approve: false,
        callbacks: Some(CallbackOptions {
            algorithm: CallbackAlgorithm::Ed25519,
            ..CallbackOptions::new(nowhere)
        }),
        ..Options::default()
    };
    Sandbox::start(options).await.unwrap()
}

/// The path of the session's page.
async fn sold(sandbox: &Sandbox, order: &str) -> String {
    let (status, body) = ask(sandbox, &post("/installment/create", order)).await;
    assert_eq!(status, 201, "{body}");
    let url = body["payment_url"].as_str().unwrap();
    url.strip_prefix(&sandbox.page_url()).unwrap().to_owned()
}

async fn browse(sandbox: &Sandbox, request: &str) -> String {
    let address = sandbox.page_url().replace("http://", "");
    let stream = TcpStream::connect(address).await.unwrap();
    String::from_utf8(exchange(stream, request).await).unwrap()
}

/// What a browser sends when a button is pressed.
fn press(sandbox: &Sandbox, path: &str, choice: &str) -> String {
    let (host, origin) = (
        sandbox.page_url().replace("http://", ""),
        sandbox.page_url(),
    );
    let body = format!("choice={choice}");
    format!(
        "POST {path}?lang=ru HTTP/1.1\r\nHost: {host}\r\nOrigin: {origin}\r\nSec-Fetch-Site: same-origin\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn status_of(sandbox: &Sandbox, path: &str) -> SessionStatus {
    let id = path.strip_prefix("/pay/").unwrap();
    sandbox.ledger().session(id).unwrap().status
}

#[tokio::test]
async fn the_page_shows_the_shop_and_the_order_in_the_browsers_language() {
    let sandbox = patient().await;
    let path = sold(&sandbox, &order("<17>")).await;
    let page = browse(&sandbox, &get(&path)).await;
    assert!(page.starts_with("HTTP/1.1 200 OK\r\n"), "{page}");
    for part in [
        "Это не банк",
        "shop.sandbox.example",
        "&lt;17&gt;",
        "149,90 BYN",
        "12 мес.",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    assert!(!page.contains("<script"), "{page}");
    let english = get(&path).replace(
        "Connection",
        "Accept-Language: en-GB, ru;q=0.5\r\nConnection",
    );
    let page = browse(&sandbox, &english).await;
    assert!(
        page.contains("not a bank") && page.contains("12 months"),
        "{page}"
    );
    let page = browse(&sandbox, &get(&format!("{path}?lang=en"))).await;
    assert!(page.contains("149.90 BYN"), "{page}");
}

#[tokio::test]
async fn each_button_decides_tells_the_shop_and_sends_the_customer_back() {
    let sandbox = patient().await;
    for (choice, status, back) in [
        (
            "approve",
            SessionStatus::Approved,
            "https://shop.example/ok",
        ),
        (
            "decline",
            SessionStatus::Rejected,
            "https://shop.example/no",
        ),
        (
            "cancel",
            SessionStatus::Cancelled,
            "https://shop.example/no",
        ),
        ("later", SessionStatus::Pending, "https://shop.example/ok"),
    ] {
        let told = sandbox.callbacks().len();
        let path = sold(&sandbox, &order(choice)).await;
        let page = browse(&sandbox, &press(&sandbox, &path, choice)).await;
        assert!(page.starts_with("HTTP/1.1 303 See Other\r\n"), "{page}");
        assert!(
            page.contains(&format!("\r\nLocation: {back}\r\n")),
            "{page}"
        );
        assert_eq!(status_of(&sandbox, &path), status);
        let fresh: Vec<_> = sandbox.callbacks().drain(told..).collect();
        let expected: &[&str] = if choice == "later" {
            &[]
        } else {
            &[status.as_str()]
        };
        let statuses: Vec<_> = fresh.iter().map(|event| event.status.as_str()).collect();
        assert_eq!(statuses, expected, "{choice}");
    }
    let log = sandbox.log();
    let chosen = log.iter().filter(|entry| entry.event == LogEvent::Customer);
    assert_eq!(chosen.count(), 4);
}

#[tokio::test]
async fn a_second_click_changes_nothing_and_another_choice_is_refused() {
    let sandbox = patient().await;
    let path = sold(&sandbox, &order("1")).await;
    for _ in 0..2 {
        let page = browse(&sandbox, &press(&sandbox, &path, "approve")).await;
        assert!(page.starts_with("HTTP/1.1 303 "), "{page}");
    }
    for choice in ["decline", "later"] {
        let page = browse(&sandbox, &press(&sandbox, &path, choice)).await;
        assert!(page.starts_with("HTTP/1.1 409 "), "{page}");
        assert!(page.contains("data-status=\"APPROVED\""), "{page}");
    }
    assert_eq!(status_of(&sandbox, &path), SessionStatus::Approved);
    assert_eq!(sandbox.callbacks().len(), 1);
}

#[tokio::test]
async fn another_sites_page_decides_nothing() {
    let sandbox = patient().await;
    let path = sold(&sandbox, &order("1")).await;
    let good = press(&sandbox, &path, "approve");
    let origin = sandbox.page_url();
    for (status, bad) in [
        (
            403,
            good.replace(&format!("Origin: {origin}"), "Origin: https://evil.example"),
        ),
        (
            403,
            good.replace(&format!("Origin: {origin}"), "Origin: null"),
        ),
        (403, good.replace("same-origin", "cross-site")),
        (403, good.replace("x-www-form-urlencoded", "json")),
        (403, good.replace("Host: 127.0.0.1", "Host: evil.example")),
        (400, good.replace("choice=approve", "choice=APPROVE")),
        (404, good.replace("/pay/s-", "/pay/x-")),
        (404, good.replace("/pay/s-", "/bay/s-")),
        (405, good.replace("POST ", "PUT ")),
    ] {
        assert_ne!(bad, good);
        let page = browse(&sandbox, &bad).await;
        assert!(
            page.starts_with(&format!("HTTP/1.1 {status} ")),
            "{bad}\n{page}"
        );
    }
    assert_eq!(status_of(&sandbox, &path), SessionStatus::Pending);
    let page = browse(&sandbox, &good).await;
    assert!(
        page.starts_with("HTTP/1.1 303 "),
        "and the form itself does: {page}"
    );
}

#[tokio::test]
async fn without_an_address_of_the_shop_the_customer_stays_here() {
    let sandbox = patient().await;
    let nowhere = order("1").replace(
        "\"success_url\":\"https://shop.example/ok\"",
        "\"success_url\":null",
    );
    let path = sold(&sandbox, &nowhere).await;
    let page = browse(&sandbox, &press(&sandbox, &path, "approve")).await;
    assert!(page.starts_with("HTTP/1.1 200 "), "{page}");
    assert!(
        page.contains("можно закрыть") && page.contains("одобрена"),
        "{page}"
    );
}

#[tokio::test]
async fn a_reference_can_ask_for_the_customer_where_everything_else_is_approved() {
    let sandbox = started().await;
    let path = sold(&sandbox, &order("pending-1")).await;
    assert_eq!(status_of(&sandbox, &path), SessionStatus::Pending);
    let path = sold(&sandbox, &order("1")).await;
    assert_eq!(status_of(&sandbox, &path), SessionStatus::Approved);
}
