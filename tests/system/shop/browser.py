"""browser.py DIR: a customer and an operator with a real browser, through chromedriver's HTTP (W3C WebDriver).

Each step prints "STEP<tab>ok" or "STEP<tab>what was wrong", and its screenshot goes into DIR. Buttons are clicked where
they are; what a page says is read out of its DOM. The first step that fails is the last one.
"""

import base64
import json
import pathlib
import sys
import time
import urllib.error
import urllib.request

DRIVER = "http://127.0.0.1:9515"
SHOP = "https://shop.example"
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
ARGUMENTS = [
    "--headless=new",
    # The machine itself is a container whose kernel gives no user namespaces to this one.
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--no-proxy-server",
    "--window-size=900,1000",
]


def call(method, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(DRIVER + path, data, {"Content-Type": "application/json"}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]
    except urllib.error.HTTPError as error:
        value = json.load(error)["value"]
        raise AssertionError(f"{value['error']}: {value['message'].splitlines()[0]}") from error


class Browser:
    def __init__(self, pictures, languages):
        options = {
            "args": [*ARGUMENTS, f"--lang={languages[0]}", f"--accept-lang={','.join(languages)}"],
            "prefs": {"intl.accept_languages": ",".join(languages)},
        }
        wanted = {"capabilities": {"alwaysMatch": {"browserName": "chrome", "goog:chromeOptions": options}}}
        session = call("POST", "/session", wanted)
        self.path = f"/session/{session['sessionId']}"
        self.pictures = pictures

    def open(self, url):
        call("POST", f"{self.path}/url", {"url": url})

    def where(self):
        return call("GET", f"{self.path}/url")

    def find(self, selector):
        found = call("POST", f"{self.path}/element", {"using": "css selector", "value": selector})
        return found[ELEMENT]

    def text(self, selector):
        """What the DOM has, seen or not."""
        script = "return document.querySelector(arguments[0])?.textContent.trim()"
        return call("POST", f"{self.path}/execute/sync", {"script": script, "args": [selector]})

    def run(self, script):
        return call("POST", f"{self.path}/execute/sync", {"script": script, "args": []})

    def click(self, selector):
        """A click that leads to another page: what is read afterwards is read there."""
        self.run("window.old = true")
        call("POST", f"{self.path}/element/{self.find(selector)}/click", {})
        end = time.monotonic() + 20
        while self.run("return window.old === true || document.readyState !== 'complete'"):
            assert time.monotonic() < end, f"a click on {selector} leads nowhere"
            time.sleep(0.05)

    def wait(self, what, look):
        """Reloads the page until it says what is awaited, for twenty seconds."""
        end = time.monotonic() + 20
        while not look():
            assert time.monotonic() < end, f"{what}; the page is {self.where()}, its state {self.text('#state')!r}"
            time.sleep(0.3)
            call("POST", f"{self.path}/refresh", {})

    def picture(self, name):
        image = base64.b64decode(call("GET", f"{self.path}/screenshot"))
        (self.pictures / f"{name}.png").write_bytes(image)

    def quit(self):
        call("DELETE", self.path)


def same(found, expected):
    assert found == expected, f"{found!r}, not {expected!r}"


def steps(browser, language, order):
    """The whole path in one language; `order` keeps the number of the order."""
    words = {
        "ru": {"badge": "12,50 BYN/мес × 12", "aloud": "Рассрочка: 12,50 BYN в месяц, месяцев: 12", "paid": "Оплачен. Спасибо!",
               "sum": "149,90 BYN", "approved": "одобрена", "back": "Деньги возвращены."},
        "en": {"badge": "12.50 BYN/month × 12", "aloud": "In instalments: 12.50 BYN a month, 12 months", "paid": "Paid. Thank you!",
               "sum": "149.90 BYN", "approved": "approved", "back": "The money was given back."},
    }[language]
    here = {}

    def product():
        browser.open(f"{SHOP}/?lang={language}")
        same(browser.text(".priorgate-badge span[aria-hidden]"), words["badge"])
        same(browser.text(".priorgate-badge span[aria-live]"), words["aloud"])

    def buy():
        browser.click("#buy")
        order.append(browser.where().split("order=")[1].split("&")[0])
        here["order"] = browser.where()
        assert browser.text(".priorgate-pay a.btn"), "no way to the bank"

    def bank():
        browser.click(".priorgate-pay a.btn")
        assert browser.where().startswith("http://127.0.0.1:9445/pay/s-"), browser.where()
        same(browser.text("dd.sum"), words["sum"])
        same(browser.run("return document.documentElement.lang"), language)

    def approve():
        here["bank"] = browser.where()
        browser.click("button.approve")
        same(browser.where(), here["order"])

    def paid():
        browser.wait("the order is not paid", lambda: browser.text("#state") == words["paid"])

    def decided():
        browser.open(here["bank"])
        same(browser.text("#state"), words["approved"])
        same(browser.text("button"), None)

    def refund():
        browser.open(f"{SHOP}/admin?order={order[-1]}&lang={language}")
        same(browser.text("#PAID"), "Y")
        browser.picture(f"{language}-6-admin-before")
        browser.click("#refund")
        same(browser.text("#said"), None)
        same((browser.text("#PAID"), browser.text("#IS_RETURN")), ("N", "P"))

    def returned():
        browser.open(here["order"])
        same(browser.text("#state"), words["back"])

    return [
        ("the product's page shows the badge", product, "1-product"),
        ("buying leads to the order with a way to the bank", buy, "2-order"),
        ("the bank's page shows the sum in the customer's language", bank, "3-bank"),
        ("approving leads back to the order", approve, None),
        ("and the order says that it is paid", paid, "4-paid"),
        ("the bank's page has no buttons any more", decided, "5-bank-decided"),
        ("the operator refunds it on the order's page", refund, "7-admin-refunded"),
        ("and the customer sees that the money was given back", returned, "8-returned"),
    ]


def main(directory):
    pictures = pathlib.Path(directory)
    for language, languages in (("ru", ["ru", "en"]), ("en", ["en", "ru"])):
        order = []
        browser = Browser(pictures, languages)
        try:
            for name, step, picture in steps(browser, language, order):
                try:
                    step()
                    print(f"{language}: {name}\tok", flush=True)
                except (AssertionError, IndexError) as error:
                    browser.picture(f"{language}-failed")
                    print(f"{language}: {name}\t{error}", flush=True)
                    return
                finally:
                    if picture:
                        browser.picture(f"{language}-{picture}")
            print(f"order\t{order[-1]}", flush=True)
        finally:
            browser.quit()


main(sys.argv[1])
