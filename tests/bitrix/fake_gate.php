<?php

// php fake_gate.php unix:SOCKET|tcp:0 FILE: a model of priorgate with a bank behind it, for the handler's tests. It keeps the
// once guard's rules (keys, fingerprints, subjects, repeats) and the bank's money, and answers wrongly when told to, by
// POST /control {"next": [...]}. One connection at a time; its address goes into FILE.
//
// Orders for the next requests: {"problem": {"status", "code", "outcome", "operation"?}} nothing is done and this is said;
// {"bank": {"status", "json"?, "type"?}} the bank answers this without acting; {"lose": true} the bank acts, its answer is
// lost; {"hang_up": true} the connection is closed.

declare(strict_types=1);
error_reporting(E_ALL);

[, $where, $file] = $argv;
$server = stream_socket_server($where === 'tcp:0' ? 'tcp://127.0.0.1:0' : 'unix://' . substr($where, 5), $errno, $error);
if ($server === false) {
    fwrite(STDERR, "$error\n");
    exit(1);
}
file_put_contents("$file.new", $where === 'tcp:0' ? 'http://' . stream_socket_get_name($server, false) : substr($where, 5));
rename("$file.new", $file);

final class FakeGate
{
    public array $log = [];
    public array $next = [];
    /** @var array<string, array{print: string, state: string, status: int, json: array, id: string, subject: string}> */
    private array $operations = [];
    public array $sessions = [];
    private int $count = 0;

    public function answer(string $method, string $path, array $headers, string $body): ?array
    {
        $order = array_shift($this->next) ?? [];
        if (isset($order['hang_up'])) {
            return null;
        }
        if (isset($order['problem'])) {
            $problem = $order['problem'];
            return $this->problem($problem['status'], $problem['code'], $problem['outcome'], $problem['operation'] ?? '');
        }
        $key = $headers['idempotency-key'] ?? '';
        if ($method === 'POST' && $key !== '') {
            return $this->guarded($key, $path, $headers, $body, $order);
        }
        if ($path === '/installment/refund') {
            return $this->problem(400, 'idempotency_key_required', 'not_sent');
        }
        [$status, $json] = isset($order['bank'])
            ? [$order['bank']['status'], $order['bank']['json'] ?? []] : $this->bank($method, $path, $body);
        return [$status, ['Priorgate-Outcome: answered'], $json, $order['bank']['type'] ?? 'application/json'];
    }

    private function guarded(string $key, string $path, array $headers, string $body, array $order): array
    {
        $print = "$path $body";
        $subject = $path === '/installment/refund' ? json_decode($body, true)['session_id'] : '';
        $own = $this->operations[$key] ?? null;
        if ($own !== null) {
            $about = "{$own['id']}; state={$own['state']}";
            if ($own['print'] !== $print) {
                $outcome = $own['state'] === 'done' ? 'answered' : $own['state'];
                return $this->problem(422, 'idempotency_key_reused', $outcome, $about);
            }
            if ($own['state'] === 'done') {
                return [$own['status'], ['Priorgate-Outcome: answered', "Priorgate-Operation: $about",
                    'Idempotency-Replayed: true'], $own['json'], 'application/json'];
            }
            if ($own['state'] === 'unknown') {
                return $this->problem(409, 'outcome_unknown', 'unknown', $about);
            }
        }
        foreach ($this->operations as $other) {
            if ($other['print'] === $print && $other['state'] === 'done' && ($headers['priorgate-repeat'] ?? '') !== 'intended') {
                return $this->problem(409, 'duplicate_request', 'answered', "{$other['id']}; state=done");
            }
        }
        foreach ($this->operations as $name => $other) {
            if ($name !== $key && $subject !== '' && $other['subject'] === $subject && $other['state'] === 'unknown') {
                return $this->problem(409, 'subject_busy', 'unknown', "{$other['id']}; state=unknown");
            }
        }
        $id = $own['id'] ?? sprintf('op_%020x', ++$this->count);
        [$status, $json] = isset($order['bank'])
            ? [$order['bank']['status'], $order['bank']['json'] ?? []] : $this->bank('POST', $path, $body);
        $type = $order['bank']['type'] ?? 'application/json';
        $state = match (true) {
            isset($order['lose']) => 'unknown',
            in_array($status, [401, 403, 429], true) => 'refused',
            ($status < 300 || in_array($status, [400, 404, 409, 410, 422], true)) && $type === 'application/json' => 'done',
            default => 'unknown',
        };
        $this->operations[$key] = ['print' => $print, 'state' => $state, 'status' => $status, 'json' => $json, 'id' => $id,
            'subject' => $subject];
        if (isset($order['lose'])) {
            return $this->problem(502, 'bank_disconnected', 'unknown', "$id; state=unknown");
        }
        $outcome = $state === 'unknown' ? 'unknown' : 'answered';
        return [$status, ["Priorgate-Outcome: $outcome", "Priorgate-Operation: $id; state=$state"], $json, $type];
    }

    /** What `priorgate operations resolve` does. */
    public function resolve(string $as): void
    {
        foreach ($this->operations as $key => $operation) {
            if ($operation['state'] === 'unknown') {
                $this->operations[$key]['state'] = $as;
            }
        }
    }

    private function bank(string $method, string $path, string $body): array
    {
        $data = json_decode($body, true) ?? [];
        if ($path === '/installment/create') {
            $id = 's-' . (count($this->sessions) + 1);
            $this->sessions[$id] = ['status' => 'PENDING', 'amount' => $data['amount'], 'refunded' => 0, 'refunds' => 0,
                'currency' => $data['currency'], 'order_ref' => $data['order_ref']];
            return [201, ['session_id' => $id, 'payment_url' => "https://bank.example/pay/$id"]];
        }
        $id = $path === '/installment/refund' ? $data['session_id'] : substr($path, strlen('/installment/'));
        $session = &$this->sessions[$id];
        if ($session === null) {
            unset($this->sessions[$id]);
            return [404, ['error' => ['code' => 'session_unknown', 'message' => 'no such session']]];
        }
        if ($method === 'GET') {
            $refunded = sprintf('%d.%02d', intdiv($session['refunded'], 100), $session['refunded'] % 100);
            return [200, ['session_id' => $id, 'refunded' => $refunded] + $session];
        }
        $minor = static fn (string $sum): int => (int) str_replace('.', '', $sum);
        if ($session['status'] !== 'APPROVED') {
            return [409, ['error' => ['code' => 'not_approved', 'message' => 'Иван has not approved']]];
        }
        if ($session['refunded'] + $minor($data['amount']) > $minor($session['amount'])) {
            return [422, ['error' => ['code' => 'refund_too_large', 'message' => 'more than is left']]];
        }
        $session['refunded'] += $minor($data['amount']);
        $session['refunds']++;
        $session['status'] = $session['refunded'] === $minor($session['amount']) ? 'REFUNDED' : 'APPROVED';
        return [200, ['refund_id' => "r-$id-{$session['refunds']}"]];
    }

    private function problem(int $status, string $code, string $outcome, string $operation = ''): array
    {
        $headers = ["Priorgate-Outcome: $outcome"];
        if ($operation !== '') {
            $headers[] = "Priorgate-Operation: $operation";
        }
        return [$status, $headers, ['status' => $status, 'code' => $code, 'detail' => 'by the test'],
            'application/problem+json'];
    }
}

$gate = new FakeGate();
$quit = false;
while (true) {
    $client = @stream_socket_accept($server, 600);
    if ($client === false) {
        exit(0);
    }
    $head = '';
    while (($line = fgets($client)) !== false && rtrim($line) !== '') {
        $head .= $line;
    }
    $lines = explode("\r\n", trim($head));
    [$method, $path] = explode(' ', array_shift($lines) . '  ');
    $headers = [];
    foreach ($lines as $line) {
        [$name, $value] = explode(':', $line, 2);
        $headers[strtolower($name)] = trim($value);
    }
    $length = (int) ($headers['content-length'] ?? 0);
    $body = $length > 0 ? (string) stream_get_contents($client, $length) : '';
    if ($path === '/control') {
        $told = json_decode($body, true) ?? [];
        $gate->next = $told['next'] ?? $gate->next;
        foreach ($told['sessions'] ?? [] as $id => $fields) {
            $gate->sessions[$id] = $fields + ($gate->sessions[$id] ?? []);
        }
        if (isset($told['resolve'])) {
            $gate->resolve($told['resolve']);
        }
        $answer = [200, [], ['log' => $gate->log, 'sessions' => $gate->sessions], 'application/json'];
        $quit = isset($told['quit']);
    } else {
        $gate->log[] = ['method' => $method, 'path' => $path, 'headers' => $headers, 'body' => $body];
        $answer = $gate->answer($method, $path, $headers, $body);
    }
    if ($answer !== null) {
        [$status, $more, $json, $type] = $answer;
        $text = json_encode($json, JSON_UNESCAPED_UNICODE);
        fwrite($client, "HTTP/1.1 $status X\r\n" . implode('', array_map(static fn ($line) => "$line\r\n", $more))
            . "Content-Type: $type\r\nConnection: close\r\nContent-Length: " . strlen($text) . "\r\n\r\n$text");
    }
    fclose($client);
    if ($quit) {
        exit(0);
    }
}
