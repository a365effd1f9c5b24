<?php

// Plain assertions, a world of one shop and one fake gate, and what a browser, an operator and the bank do to it.

declare(strict_types=1);

use Bitrix\Main\Application;
use Bitrix\Main\HttpRequest;
use Bitrix\Main\Localization\Loc;
use Bitrix\Main\Request;
use Bitrix\Main\Server;
use Bitrix\Sale\Order;
use Bitrix\Sale\Payment;
use Bitrix\Sale\PaySystem\Logger;
use Bitrix\Sale\PaySystem\Manager;
use Sale\Handlers\PaySystem\Priorgate\Ledger;
use Sale\Handlers\PaySystem\Priorgate\Lock;

final class Tests
{
    /** @var array<string, Closure> */
    public static array $all = [];
    public static int $assertions = 0;
}

/** With PURE in the environment: for a PHP that can start no process (php-wasm). */
final class Skipped extends RuntimeException
{
}

function test(string $sentence, Closure $body): void
{
    Tests::$all[$sentence] = $body;
}

function same(mixed $expected, mixed $actual, string $what = ''): void
{
    Tests::$assertions++;
    if ($expected !== $actual) {
        throw new RuntimeException("$what\n  expected " . var_export($expected, true) . "\n  got      " . var_export($actual, true));
    }
}

function contains(string $part, string $whole, string $what = ""): void
{
    Tests::$assertions++;
    if (!str_contains($whole, $part)) {
        throw new RuntimeException("$what\n  expected to find `$part` in:\n  $whole");
    }
}

/** The handler's headers and status; CLI has none of its own. */
final class Sent
{
    /** @var list<string> */
    public static array $headers = [];
    public static int $status = 200;
}

final class Buffer
{
    public function RestartBuffer(): void
    {
    }
}

/** A model of priorgate and the bank in a process of its own. */
final class Gate
{
    /** @var resource */
    private $process;
    private string $address;

    public function __construct(public readonly string $dir, string $where)
    {
        if (getenv('PURE')) {
            throw new Skipped();
        }
        $pipes = [];
        $file = "$dir/gate." . bin2hex(random_bytes(4));
        $this->process = proc_open(
            [PHP_BINARY, __DIR__ . '/fake_gate.php', $where, $file],
            [['file', '/dev/null', 'r'], ['file', "$dir/gate.log", 'a'], ['file', "$dir/gate.log", 'a']],
            $pipes,
        );
        for ($end = microtime(true) + 20; !is_file($file) && microtime(true) < $end; clearstatcache()) {
            usleep(5_000);
        }
        $this->address = trim((string) file_get_contents($file));
    }

    public function address(): string
    {
        return $this->address;
    }

    /** @return array{log: list<array>, sessions: array<string, array>} */
    public function control(array $told = []): array
    {
        $unix = str_starts_with($this->address, '/');
        $curl = curl_init(($unix ? 'http://localhost' : $this->address) . '/control');
        curl_setopt_array($curl, [
            CURLOPT_RETURNTRANSFER => true, CURLOPT_POSTFIELDS => json_encode($told),
            CURLOPT_HTTPHEADER => ['Content-Type: application/json'], CURLOPT_TIMEOUT => 10,
        ] + ($unix ? [CURLOPT_UNIX_SOCKET_PATH => $this->address] : []));
        return json_decode((string) curl_exec($curl), true, 64, JSON_THROW_ON_ERROR);
    }

    /** @return list<array> the requests of the shop to this path */
    public function requests(string $path): array
    {
        $log = $this->control()['log'];
        return array_values(array_filter($log, static fn (array $one): bool => $one['path'] === $path));
    }

    /** The keys under which refunds were asked for. @return list<string> */
    public function refundKeys(): array
    {
        return array_map(static fn (array $one) => $one['headers']['idempotency-key'], $this->requests('/installment/refund'));
    }

    public function __destruct()
    {
        $this->control(['quit' => true]);
        proc_close($this->process);
    }
}

final class World
{
    public const SECRET = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw';
    public const TEST_SECRET = 'whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD';

    public readonly Gate $gate;

    /** @param list<string> $sums */
    public function __construct(public readonly string $dir, array $sums = ['149.90'], string $currency = 'BYN')
    {
        foreach (['live' => self::SECRET, 'test' => self::TEST_SECRET] as $bank => $secret) {
            file_put_contents("$dir/$bank.secret", "$secret\n");
            chmod("$dir/$bank.secret", 0440);
        }
        $this->gate = new Gate($dir, "unix:$dir/gate.sock");
        Manager::$values = [
            'PRIORGATE_SOCKET_LIVE' => $this->gate->address(), 'PRIORGATE_SECRET_FILE_LIVE' => "$dir/live.secret",
            'PRIORGATE_SOCKET_TEST' => "$dir/none.sock", 'PRIORGATE_SECRET_FILE_TEST' => "$dir/test.secret",
            'PS_IS_TEST' => 'N', 'PS_CHANGE_STATUS_PAY' => 'Y', 'PRIORGATE_TERM' => '12',
            'PRIORGATE_SESSION_MINUTES' => '30', 'PRIORGATE_CALLBACK_URL' => 'https://shop.example/bank/callback',
        ];
        Application::$documentRoot = "$dir/www";
        @mkdir("$dir/www");
        priorgate_store("$dir/shop.db", $sums, $currency);
        Ledger::forget();
        Order::$failSaves = 0;
        Logger::$errors = [];
        Loc::$language = 'en';
    }

    /** A new request of PHP: what the last one held is given up. */
    public function payment(int $id = 1): Payment
    {
        Lock::release();
        return Order::load(1)->getPaymentCollection()->getItemById($id);
    }

    public function field(string $name, int $id = 1): string
    {
        return (string) $this->payment($id)->getField($name);
    }

    /** The customer opens the payment page. */
    public function pay(int $id = 1): \Bitrix\Sale\PaySystem\ServiceResult
    {
        $result = Manager::getObjectById(Manager::PAY_SYSTEM)->initiatePay($this->payment($id));
        Lock::release();
        return $result;
    }

    /** A session that the bank has approved, and the shop knows. */
    public function paid(): string
    {
        $this->pay();
        $session = $this->field('PS_INVOICE_ID');
        $this->gate->control(['sessions' => [$session => ['status' => 'APPROVED']]]);
        same(true, $this->deliver(self::approved($session)), 'APPROVED is acknowledged');
        same('Y', $this->field('PAID'));
        return $session;
    }

    public static function approved(string $session, string $amount = '149.90'): array
    {
        return ['session_id' => $session, 'order_ref' => '1', 'status' => 'APPROVED', 'amount' => $amount, 'currency' => 'BYN'];
    }

    public static function refunded(string $session, string $id, string $sum, string $total): array
    {
        return ['status' => 'REFUNDED', 'refund_id' => $id, 'refund_amount' => $sum, 'refunded' => $total]
            + self::approved($session);
    }

    /**
     * priorgate delivers; true if the shop acknowledged, with a signature that fits this attempt.
     *
     * @param array{secret?: string, time?: int, signature?: string, id?: string, query?: array, body?: string} $with
     */
    public function deliver(array $event, array $with = []): bool
    {
        $body = $with['body'] ?? json_encode($event);
        $id = $with['id'] ?? 'priorbank_' . substr(hash('sha256', $body), 0, 32);
        $time = (string) ($with['time'] ?? time());
        $key = base64_decode(substr($with['secret'] ?? self::SECRET, 6));
        $good = 'v1,' . base64_encode(hash_hmac('sha256', "$id.$time.$body", $key, true));
        HttpRequest::$input = $with['sent'] ?? $body;
        Sent::$headers = [];
        Sent::$status = 200;
        Lock::release();
        ob_start();
        Manager::answer(new Request($with['query'] ?? ['BX_HANDLER' => 'PRIORGATE'], new Server([
            'HTTP_WEBHOOK_ID' => $id, 'HTTP_WEBHOOK_TIMESTAMP' => $time,
            'HTTP_WEBHOOK_SIGNATURE' => $with['signature'] ?? $good,
        ])));
        $said = ob_get_clean();
        Lock::release();
        $ack = "Priorgate-Ack: $id," . base64_encode(hash_hmac('sha256', "ack.$id.$time", $key, true));
        $given = array_filter(Sent::$headers, static fn (string $line) => str_starts_with($line, 'Priorgate-Ack'));
        $acknowledged = array_values($given) === [$ack];
        same($acknowledged ? [$ack] : [], array_values($given), 'an acknowledgement is the right one or none');
        same($acknowledged, $said === '{"ack":true}', 'the body agrees');
        same($acknowledged || $said === '' ? 200 : 503, Sent::$status);
        return $acknowledged;
    }

    /** An operator sets the return on the order's page; the errors that they see. @return list<string> */
    public function refundAll(string $comment = ''): array
    {
        $payment = $this->payment();
        $payment->setFields(['PAY_RETURN_COMMENT' => $comment]);
        $set = $payment->setReturn(Payment::RETURN_PS);
        return $this->save($payment, $set);
    }

    /** Code of the shop refunds a part. @return list<string> */
    public function refundPart(string $sum, string $comment = ''): array
    {
        $payment = $this->payment();
        $payment->setFields(['PAY_RETURN_COMMENT' => $comment]);
        return $this->save($payment, Manager::getObjectById(Manager::PAY_SYSTEM)->refund($payment, $sum));
    }

    /** @return list<string> */
    public function save(Payment $payment, \Bitrix\Main\Result $result): array
    {
        if ($result->isSuccess()) {
            $result = $payment->getCollection()->getOrder()->save();
        }
        Lock::release();
        return $result->getErrorMessages();
    }

    /** An operator presses "update" on the order's page; what is there afterwards. */
    public function check(): string
    {
        $payment = $this->payment();
        Manager::getObjectById(Manager::PAY_SYSTEM)->check($payment);
        Lock::release();
        return $this->field('PS_STATUS_DESCRIPTION');
    }

    /** How often PAID has changed: each time is an e-mail and a receipt. */
    public function receipts(string $paid): int
    {
        $sql = "SELECT COUNT(*) AS N FROM receipts WHERE PAID = '$paid'";
        return (int) Application::getConnection()->query($sql)->fetch()['N'];
    }

    /** What the bank has given back, in kopecks. */
    public function given(string $session): int
    {
        return $this->gate->control()['sessions'][$session]['refunded'];
    }
}
