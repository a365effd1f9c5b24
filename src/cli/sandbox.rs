//! `priorgate sandbox`: the fake bank in the foreground, with its log.
//!
//! Owns the command's arguments and what a person sees. The bank itself is in `crate::sandbox`.

use std::fs::{self, DirBuilder};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::broadcast::error::RecvError;

use crate::sandbox::{
    BANNER, CallbackAlgorithm, CallbackOptions, CallbackUrl, Options, PkiFiles, Sandbox,
};

/// Arguments of `priorgate sandbox`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Where the bank listens (loopback only; port 0 picks a free one)
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    pub bank: SocketAddr,
    /// Where the control API listens (loopback only; port 0 picks a free one)
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    pub control: SocketAddr,
    /// Where the bank's page for customers listens (loopback only; port 0 picks a free one)
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    pub page: SocketAddr,
    /// Where to write the CA, the client certificate and its key, and the callbacks' public key
    /// [default: a temporary directory, removed at the end]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Approve each new session at once; `false` leaves it PENDING for the control API
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    pub auto_approve: bool,
    /// Where to send signed callbacks: http://127.0.0.1:PORT/PATH or unix:/SOCKET:/PATH [default:
    /// none are sent]
    #[arg(long, value_name = "URL")]
    pub callback_url: Option<CallbackUrl>,
    /// How callbacks are signed: rsa-pkcs1-sha256, rsa-pss-sha256, ed25519 or ecdsa-p256-sha256
    #[arg(long, value_name = "ALGORITHM", default_value_t = CallbackAlgorithm::default())]
    #[arg(requires = "callback_url")]
    pub callback_algorithm: CallbackAlgorithm,
    /// Sign `<timestamp>.<body>`, the timestamp in this header
    #[arg(long, value_name = "HEADER", requires = "callback_url")]
    pub callback_timestamp: Option<String>,
    /// Print no line per request or callback
    #[arg(long)]
    pub quiet: bool,
}

/// Runs the sandbox until SIGINT or SIGTERM and gives back the exit code. A closed `out` ends it
/// quietly.
pub fn run(args: &Args, out: &mut dyn Write) -> u8 {
    match serve(args, out) {
        Ok(()) => 0,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
        Err(error) => {
            // Nothing is left to tell when this fails too.
            let _ = writeln!(out, "priorgate sandbox: {}", with_causes(&error));
            1
        }
    }
}

fn serve(args: &Args, out: &mut dyn Write) -> io::Result<()> {
    let temporary = match args.dir {
        Some(_) => None,
        None => Some(TemporaryDir::new()?),
    };
    let dir = args
        .dir
        .clone()
        .or_else(|| temporary.as_ref().map(|dir| dir.0.clone()));
    let options = Options {
        bank_addr: args.bank,
        control_addr: args.control,
        page_addr: args.page,
        dir,
        auto_approve: args.auto_approve,
        callbacks: args.callback_url.clone().map(|url| CallbackOptions {
            algorithm: args.callback_algorithm,
            timestamp_header: args.callback_timestamp.clone(),
            ..CallbackOptions::new(url)
        }),
    };
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime
        .enable_all()
        .build()?
        .block_on(until_told(options, args.quiet, out))
}

async fn until_told(options: Options, quiet: bool, out: &mut dyn Write) -> io::Result<()> {
    // Before the first line: whoever reads it may send the signal at once.
    let mut interrupted = signal(SignalKind::interrupt())?;
    let mut terminated = signal(SignalKind::terminate())?;
    let callback_url = options
        .callbacks
        .as_ref()
        .map(|callbacks| callbacks.url.clone());
    let sandbox = Sandbox::start(options).await?;
    let mut log = sandbox.follow();
    introduce(&sandbox, callback_url.as_ref(), out)?;
    loop {
        let entry = tokio::select! {
            _ = interrupted.recv() => break,
            _ = terminated.recv() => break,
            entry = log.recv() => entry,
        };
        match entry {
            _ if quiet => {}
            Ok(entry) => writeln!(out, "{entry}")?,
            Err(RecvError::Lagged(missed)) => writeln!(out, "({missed} lines not shown)")?,
            Err(RecvError::Closed) => break,
        }
        out.flush()?;
    }
    writeln!(out, "stopped; everything is forgotten")?;
    out.flush()
}

/// Where everything is, and a request that works when pasted.
fn introduce(
    sandbox: &Sandbox,
    callback_url: Option<&CallbackUrl>,
    out: &mut dyn Write,
) -> io::Result<()> {
    writeln!(out, "{BANNER}\n")?;
    writeln!(out, "  bank         {}", sandbox.bank_url())?;
    writeln!(
        out,
        "  control      {}/control/state",
        sandbox.control_url()
    )?;
    writeln!(
        out,
        "  page         {}/pay/…   (each payment_url)",
        sandbox.page_url()
    )?;
    if let Some(url) = callback_url {
        writeln!(out, "  callbacks    {url}")?;
    }
    if let Some(files) = sandbox.files() {
        writeln!(out, "  bank CA      {}", files.bank_ca.display())?;
        writeln!(out, "  certificate  {}", files.client_certificate.display())?;
        writeln!(out, "  key          {}", files.client_key.display())?;
        if let Some(file) = sandbox.callback_key_file() {
            writeln!(out, "  callback key {}", file.display())?;
        }
        writeln!(out, "\n{}\n", curl(files, &sandbox.bank_url()))?;
    }
    out.flush()
}

fn curl(files: &PkiFiles, bank_url: &str) -> String {
    format!(
        "curl --cacert {} --cert {} --key {} \\\n  -H 'Content-Type: application/json' \\\n  \
         -d '{{\"order_ref\":\"1\",\"amount\":\"149.90\",\"currency\":\"BYN\",\"term\":12,\
         \"items\":[{{\"name\":\"Чайник\",\"qty\":1,\"price\":\"149.90\"}}]}}' \\\n  \
         {bank_url}/installment/create",
        quoted(&files.bank_ca),
        quoted(&files.client_certificate),
        quoted(&files.client_key),
    )
}

/// A path as one word of a POSIX shell.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

/// The error and what caused it, on one line.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Left-overs of killed runs with the same process id, as in a container, must not stop a new one.
const TRIES: u32 = 1_000;

/// A directory of ours only, removed when dropped.
struct TemporaryDir(PathBuf);

impl TemporaryDir {
    fn new() -> io::Result<Self> {
        let mut at = 0;
        loop {
            let name = format!("priorgate-sandbox-{}-{at}", std::process::id());
            let path = std::env::temp_dir().join(name);
            // One that exists is not used: someone else may have made it, and would see the key.
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && at < TRIES => at += 1,
                Err(error) => {
                    let message = format!("cannot make `{}`: {error}; use --dir", path.display());
                    return Err(io::Error::new(error.kind(), message));
                }
            }
        }
    }
}

impl Drop for TemporaryDir {
    fn drop(&mut self) {
        // What is left behind is a throw-away key that nobody trusts any more.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    /// Says that the reader went away, once something was said that should end the test.
    struct Reader {
        text: String,
        until: &'static str,
    }

    impl Write for Reader {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.text.push_str(&String::from_utf8_lossy(bytes));
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            if self.text.contains(self.until) {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            Ok(())
        }
    }

    #[test]
    fn it_says_what_it_is_and_where_and_ends_quietly_with_its_reader() {
        let args = Line::parse_from(["sandbox"]).args;
        assert!(args.auto_approve && !args.quiet);
        let mut out = Reader {
            text: String::new(),
            until: "/installment/create",
        };
        assert_eq!(run(&args, &mut out), 0);
        assert!(out.text.starts_with("THIS IS NOT A BANK"), "{}", out.text);
        let key = out
            .text
            .lines()
            .find_map(|line| line.strip_prefix("  key          "));
        assert!(
            !Path::new(key.unwrap()).exists(),
            "the temporary key is removed"
        );
    }

    #[test]
    fn callbacks_go_to_this_machine_and_their_key_is_shown() {
        let url = "unix:/run/priorgate/callback.sock:/bank";
        let ed25519 = ["--callback-algorithm", "ed25519"];
        let args = ["sandbox", "--callback-url", url]
            .into_iter()
            .chain(ed25519);
        let args = Line::parse_from(args).args;
        let mut out = Reader {
            text: String::new(),
            until: "/installment/create",
        };
        assert_eq!(run(&args, &mut out), 0);
        assert!(
            out.text.contains("/bank-callback.pem\n") && out.text.contains(url),
            "{}",
            out.text
        );
        for refused in [
            &["--callback-url", "http://shop.example:80/cb"][..],
            &["--callback-url", url, "--callback-algorithm", "hmac"],
            &ed25519,
            &["--callback-timestamp", "X-Timestamp"],
        ] {
            let args = ["sandbox"].iter().chain(refused);
            assert!(Line::try_parse_from(args).is_err(), "{refused:?}");
        }
    }

    #[test]
    fn an_address_that_is_not_loopback_is_refused_with_the_next_step() {
        let args = Line::parse_from(["sandbox", "--bank", "0.0.0.0:0"]).args;
        let mut out = Vec::new();
        assert_eq!(run(&args, &mut out), 1);
        let text = String::from_utf8(out).unwrap();
        assert!(
            text.contains("loopback only") && text.contains("127.0.0.1"),
            "{text}"
        );
    }

    #[test]
    fn a_path_with_a_quote_stays_one_word() {
        assert_eq!(quoted(Path::new("/a b/it's")), r"'/a b/it'\''s'");
    }
}
