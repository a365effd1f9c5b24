<?php
// A shop's client class for the instalment API, as such classes look: a base URL, cURL, JSON, exceptions. What differs
// from one that speaks to the bank itself is the base URL, the certificate options that are gone, where the gate asks for
// a token two lines on headers, and where it guards refunds a key for each of them.

final class InstallmentClient
{
    private string $baseUrl;
    private array $headers;

    public function __construct(string $baseUrl, array $headers = [])
    {
        $this->baseUrl = rtrim($baseUrl, '/');
        $this->headers = $headers;
    }

    public function create(array $order): array
    {
        return $this->request('POST', '/installment/create', $order);
    }

    /** The key is made once for each refund and kept with it. */
    public function refund(string $sessionId, string $amount, string $key = ''): array
    {
        $data = ['session_id' => $sessionId, 'amount' => $amount];
        return $this->request('POST', '/installment/refund', $data, $key === '' ? [] : ['Idempotency-Key: ' . $key]);
    }

    /** A GET with a body, as some such classes send it. */
    public function status(string $sessionId): array
    {
        return $this->request('GET', '/installment/' . $sessionId, []);
    }

    private function request(string $method, string $path, array $data, array $headers = []): array
    {
        $body = json_encode($data, JSON_UNESCAPED_UNICODE);
        $curl = curl_init($this->baseUrl . $path);
        curl_setopt_array($curl, [
            CURLOPT_RETURNTRANSFER => true,
            CURLOPT_CUSTOMREQUEST => $method,
            CURLOPT_POSTFIELDS => $body,
            CURLOPT_HTTPHEADER => array_merge(
                ['Content-Type: application/json', 'Accept: application/json'],
                $this->headers,
                $headers
            ),
            // Gone: CURLOPT_SSLCERT, CURLOPT_SSLKEY, CURLOPT_CAINFO.
        ]);
        $answer = curl_exec($curl);
        $status = curl_getinfo($curl, CURLINFO_HTTP_CODE);
        $error = curl_error($curl);
        curl_close($curl);
        if ($answer === false) {
            throw new RuntimeException('cURL: ' . $error);
        }
        if ($status < 200 || $status >= 300) {
            throw new RuntimeException('HTTP ' . $status . ': ' . $answer);
        }
        return json_decode($answer, true, 512, JSON_THROW_ON_ERROR);
    }
}
