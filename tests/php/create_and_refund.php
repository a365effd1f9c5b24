<?php
// php create_and_refund.php BASE_URL [TOKEN [KEY]]: a session is created, looked at and refunded; with a key twice, and
// once more under another key.
error_reporting(E_ALL);
set_error_handler(static function (int $level, string $message): never {
    throw new ErrorException($message, 0, $level);
});
require __DIR__ . '/client.php';

$headers = isset($argv[2]) ? ['Priorgate-Token: ' . $argv[2]] : [];
$client = new InstallmentClient($argv[1], $headers);
// Over 1 KiB of JSON, Cyrillic names: an ordinary basket.
$items = [];
for ($n = 0; $n < 20; $n++) {
    $items[] = ['name' => 'Холодильник двухкамерный № ' . $n, 'qty' => 1, 'price' => '62.50'];
}
$session = $client->create([
    'order_ref' => 'php-' . getmypid(),
    'amount' => '1250.00',
    'currency' => 'BYN',
    'term' => 12,
    'items' => $items,
]);
$state = $client->status($session['session_id']);
$key = $argv[3] ?? '';
$refund = $client->refund($session['session_id'], '250.00', $key);
$again = $other = null;
if ($key !== '') {
    $again = $client->refund($session['session_id'], '250.00', $key);
    try {
        $other = $client->refund($session['session_id'], '250.00', $key . '-other');
    } catch (RuntimeException $error) {
        $other = $error->getMessage();
    }
}
$told = ['session' => $session, 'state' => $state, 'refund' => $refund, 'again' => $again, 'other' => $other];
echo json_encode($told), "\n";
