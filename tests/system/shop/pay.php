<?php
// pay.php?over=unix|tcp: a session is created and a part of it refunded, as the shop's own pages would.
error_reporting(E_ALL);
set_error_handler(static function (int $level, string $message): never {
    throw new ErrorException($message, 0, $level);
});

function ask(string $path, array $data, array $headers): array
{
    $unix = ($_GET['over'] ?? 'unix') === 'unix';
    $curl = curl_init(($unix ? 'http://localhost' : 'http://127.0.0.1:9180') . $path);
    curl_setopt_array($curl, [
        CURLOPT_POST => true,
        CURLOPT_POSTFIELDS => json_encode($data),
        CURLOPT_HTTPHEADER => array_merge(['Content-Type: application/json'], $headers),
        CURLOPT_RETURNTRANSFER => true,
        CURLOPT_TIMEOUT => 35,
    ] + ($unix ? [CURLOPT_UNIX_SOCKET_PATH => '/run/priorgate/priorbank.sock'] : []));
    $body = curl_exec($curl);
    $status = curl_getinfo($curl, CURLINFO_HTTP_CODE);
    if ($body === false || !in_array($status, [200, 201], true)) {
        throw new RuntimeException("$path: $status " . ($body === false ? curl_error($curl) : $body));
    }
    return json_decode($body, true, 64, JSON_THROW_ON_ERROR);
}

$session = ask('/installment/create', [
    'order_ref' => 'order-' . bin2hex(random_bytes(8)),
    'amount' => '1250.00',
    'currency' => 'BYN',
    'term' => 12,
    'items' => [['name' => 'Холодильник', 'qty' => 1, 'price' => '1250.00']],
], []);
$key = 'Idempotency-Key: ' . bin2hex(random_bytes(16));
$refund = ask('/installment/refund', ['session_id' => $session['session_id'], 'amount' => '250.00'], [$key]);
echo json_encode(['user' => posix_geteuid(), 'session' => $session['session_id'], 'refund' => $refund['refund_id']]), "\n";
