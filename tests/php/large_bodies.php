<?php
// php large_bodies.php URL [SOCKET]: bodies above the limit, with cURL's own idea of Expect. One line of JSON for each.
error_reporting(E_ALL);
foreach ([300 * 1024, 2 * 1024 * 1024] as $size) {
    $curl = curl_init($argv[1]);
    $headers = ['Content-Type: application/json'];
    if ($size > 1024 * 1024) {
        $headers[] = 'Expect: 100-continue';
    }
    curl_setopt_array($curl, [
        CURLOPT_RETURNTRANSFER => true,
        CURLOPT_POST => true,
        CURLOPT_POSTFIELDS => str_repeat(' ', $size),
        CURLOPT_HTTPHEADER => $headers,
    ]);
    if (isset($argv[2])) {
        curl_setopt($curl, CURLOPT_UNIX_SOCKET_PATH, $argv[2]);
    }
    $started = hrtime(true);
    $answer = curl_exec($curl);
    echo json_encode([
        'size' => $size,
        'status' => curl_getinfo($curl, CURLINFO_HTTP_CODE),
        'code' => $answer === false ? curl_error($curl) : json_decode($answer, true)['code'],
        'ms' => intdiv(hrtime(true) - $started, 1000000),
    ]), "\n";
}
