<?php
// What a shop does with a delivery of priorgate: prove that it is one, act on it once, and say so.
//
// The secret is the `whsec_…` of deliver.secret_files, in a file that PHP may read and the web does not serve.

$secret = trim(file_get_contents(getenv('PRIORGATE_DELIVER_SECRET') ?: '/etc/priorgate/deliver.secret'));
$key = base64_decode(substr($secret, strlen('whsec_')));
$id = $_SERVER['HTTP_WEBHOOK_ID'] ?? '';
$time = $_SERVER['HTTP_WEBHOOK_TIMESTAMP'] ?? '';
$body = file_get_contents('php://input');

$good = 'v1,' . base64_encode(hash_hmac('sha256', "$id.$time.$body", $key, true));
$given = explode(' ', $_SERVER['HTTP_WEBHOOK_SIGNATURE'] ?? '');
$fits = array_filter($given, fn (string $signature): bool => hash_equals($good, $signature));
if (!$fits || abs(time() - (int) $time) > 300) {
    http_response_code(403);
    exit;
}

// Here the shop acts, once for each $id: it may come again if this answer is lost. Look at the amount and at
// $_SERVER['HTTP_PRIORGATE_TRANSITION'] before an order is marked as paid.
$event = json_decode($body, true);
error_log('delivery ' . $id . ': ' . ($event['status'] ?? 'no status'));

// Only now, and only this way, does priorgate believe that the shop has it.
header("Priorgate-Ack: $id," . base64_encode(hash_hmac('sha256', "ack.$id.$time", $key, true)));
