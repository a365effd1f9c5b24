<?php

declare(strict_types=1);

namespace Sale\Handlers\PaySystem\Priorgate;

/**
 * Speaks to priorgate: over its Unix socket, or over a loopback port with a token. Knows no certificate and no key; the
 * bank's identity is none of PHP's business.
 */
class Client
{
    /** Above priorgate's `timeouts.total` (30 s), so that its answer, which says what is known, comes first. */
    private const TIMEOUT = 35;
    private const CONNECT_TIMEOUT = 3;
    /** priorgate answers 1 MiB at most unless told otherwise. */
    private const MAX_BODY = 4 << 20;
    private const LOOPBACK = '#^http://(?:127\.0\.0\.1|localhost|\[::1\])(?::[0-9]{1,5})?$#D';

    /**
     * @param string $where `/run/priorgate/bank.sock`, or `http://127.0.0.1:9180`
     * @param string $token for TCP
     * @throws ConfigError
     */
    public function __construct(private string $where, private string $token = '')
    {
        $this->where = rtrim($where, '/');
        if (str_starts_with($this->where, '/')) {
            // sun_path is that long.
            if (strlen($this->where) > 107) {
                throw new ConfigError('the path of the socket is longer than 107 bytes');
            }
        } elseif (preg_match(self::LOOPBACK, $this->where) !== 1) {
            throw new ConfigError('expected the path of a socket, or http://127.0.0.1:PORT: priorgate is on this machine');
        }
    }

    /** @param string $body JSON, or '' for none */
    public function request(string $method, string $path, string $body = '', string $key = '', bool $repeat = false): Answer
    {
        $unix = str_starts_with($this->where, '/');
        $curl = curl_init(($unix ? 'http://localhost' : $this->where) . $path);
        if ($curl === false) {
            return new Answer(0, Answer::NOT_SENT, 'sidecar_unreachable');
        }
        $headers = [];
        $answer = '';
        curl_setopt_array($curl, $this->options($unix) + [
            CURLOPT_CUSTOMREQUEST => $method,
            CURLOPT_HTTPHEADER => $this->headers($body, $key, $repeat),
            CURLOPT_HEADERFUNCTION => static function (mixed $curl, string $line) use (&$headers): int {
                if (str_starts_with($line, 'HTTP/')) {
                    $headers = [];
                } elseif (str_contains($line, ':')) {
                    [$name, $value] = explode(':', $line, 2);
                    $headers[strtolower($name)] = trim($value);
                }
                return strlen($line);
            },
            CURLOPT_WRITEFUNCTION => static function (mixed $curl, string $bytes) use (&$answer): int {
                $answer .= $bytes;
                return strlen($answer) > self::MAX_BODY ? 0 : strlen($bytes);
            },
        ]);
        if ($body !== '') {
            curl_setopt($curl, CURLOPT_POSTFIELDS, $body);
        }
        $done = curl_exec($curl);
        $status = (int) curl_getinfo($curl, CURLINFO_RESPONSE_CODE);
        $errno = curl_errno($curl);
        unset($curl);
        if ($done === false) {
            // Without a connection nothing was sent; after it, who knows.
            $never = in_array($errno, [CURLE_COULDNT_RESOLVE_HOST, CURLE_COULDNT_CONNECT], true);
            $outcome = $never ? Answer::NOT_SENT : Answer::UNKNOWN;
            return new Answer(0, $outcome, $never ? 'sidecar_unreachable' : 'sidecar_silent');
        }
        return self::read($status, $headers, $answer);
    }

    /** @return array<int, mixed> */
    private function options(bool $unix): array
    {
        $options = [
            CURLOPT_CONNECTTIMEOUT => self::CONNECT_TIMEOUT,
            CURLOPT_TIMEOUT => self::TIMEOUT,
            CURLOPT_NOSIGNAL => true,
            // A redirect would go to the bank, or anywhere, without the certificate; a proxy would read everything.
            CURLOPT_FOLLOWLOCATION => false,
            CURLOPT_PROXY => '',
            CURLOPT_NOPROXY => '*',
            CURLOPT_PROTOCOLS => CURLPROTO_HTTP,
            CURLOPT_HTTP_VERSION => CURL_HTTP_VERSION_1_1,
        ];
        return $unix ? $options + [CURLOPT_UNIX_SOCKET_PATH => $this->where] : $options;
    }

    /** @return list<string> */
    private function headers(string $body, string $key, bool $repeat): array
    {
        // An empty Expect: cURL must not wait a second for a `100 Continue` with a large basket.
        $headers = ['Accept: application/json', 'Expect:'];
        if ($body !== '') {
            $headers[] = 'Content-Type: application/json';
        }
        if ($this->token !== '') {
            $headers[] = 'Priorgate-Token: ' . $this->token;
        }
        if ($key !== '') {
            $headers[] = 'Idempotency-Key: ' . $key;
        }
        if ($repeat) {
            $headers[] = 'Priorgate-Repeat: intended';
        }
        return $headers;
    }

    /** @param array<string, string> $headers */
    private static function read(int $status, array $headers, string $body): Answer
    {
        $outcome = $headers['priorgate-outcome'] ?? '';
        if (!in_array($outcome, [Answer::ANSWERED, Answer::NOT_SENT, Answer::UNKNOWN], true)) {
            // Somebody else listens there. What it did with the request is anybody's guess.
            return new Answer($status, Answer::UNKNOWN, 'not_priorgate');
        }
        $json = json_decode($body, true, 32);
        $json = is_array($json) ? $json : null;
        $type = strtolower(trim(explode(';', $headers['content-type'] ?? '')[0]));
        $code = '';
        if ($type === 'application/problem+json') {
            $code = is_string($json['code'] ?? null) ? $json['code'] : 'problem';
        }
        preg_match('/^(op_[0-9a-f]{1,40}); *state=([a-z_]{1,20})$/D', $headers['priorgate-operation'] ?? '', $operation);
        return new Answer(
            $status,
            $outcome,
            $code,
            $operation[1] ?? '',
            $operation[2] ?? '',
            $json,
            ($headers['idempotency-replayed'] ?? '') === 'true',
            $headers['priorgate-request-id'] ?? '',
        );
    }
}
