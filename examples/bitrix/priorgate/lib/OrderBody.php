<?php

declare(strict_types=1);

namespace Sale\Handlers\PaySystem\Priorgate;

use Bitrix\Sale\Payment;

/** The body of a request for a session, for one payment. The fields' names are assumed, see Facts. */
final class OrderBody
{
    private const MAX_ITEMS = 100;

    /**
     * @param array{ref: string, sum: Money, currency: string, term: int, title: string, delivery: string,
     *     codes: array<string, string>, urls: array<string, string>} $order
     */
    public static function build(Payment $payment, array $order): string
    {
        $body = [
            'order_ref' => $order['ref'],
            'amount' => (string) $order['sum'],
            'currency' => $order['currency'],
            'term' => $order['term'],
            'items' => self::items($payment, $order['sum'], $order['title'], $order['delivery']),
        ];
        $customer = self::customer($payment, $order['codes']);
        if ($customer !== []) {
            $body['customer'] = $customer;
        }
        return self::json($body + array_filter($order['urls'], static fn (string $url): bool => $url !== ''));
    }

    /** @param array<string, mixed> $body */
    public static function json(array $body): string
    {
        $flags = JSON_UNESCAPED_UNICODE | JSON_UNESCAPED_SLASHES | JSON_INVALID_UTF8_SUBSTITUTE | JSON_THROW_ON_ERROR;
        return json_encode($body, $flags);
    }

    /**
     * The basket, and the delivery as a line. Where they do not add up to the payment (a part of an order, a discount that
     * does not divide), one line with the payment's sum.
     *
     * @return list<array{name: string, qty: string, price: string}>
     */
    private static function items(Payment $payment, Money $sum, string $title, string $delivery): array
    {
        $whole = [['name' => $title, 'qty' => '1', 'price' => (string) $sum]];
        $order = $payment->getCollection()->getOrder();
        $items = [];
        $total = Money::ofMinor(0);
        foreach ($order->getBasket() ?? [] as $item) {
            $price = Money::of($item->getPrice());
            $quantity = rtrim(rtrim(number_format((float) $item->getQuantity(), 3, '.', ''), '0'), '.');
            $line = $price?->times($quantity);
            // More than three decimals are no quantity that the line could be checked by.
            if ($price === null || $line === null || abs((float) $quantity - (float) $item->getQuantity()) > 1e-9) {
                return $whole;
            }
            $name = self::short((string) $item->getField('NAME'));
            $items[] = ['name' => $name === '' ? $title : $name, 'qty' => $quantity, 'price' => (string) $price];
            $total = $total->plus($line);
        }
        $cost = Money::of($order->getDeliveryPrice());
        if ($cost !== null && !$cost->isZero()) {
            $items[] = ['name' => $delivery, 'qty' => '1', 'price' => (string) $cost];
            $total = $total->plus($cost);
        }
        return $items !== [] && count($items) <= self::MAX_ITEMS && $total->equals($sum) ? $items : $whole;
    }

    /**
     * From the order's properties: by the codes of the form, else those that are marked as payer, phone and e-mail.
     *
     * @param array<string, string> $codes
     * @return array<string, string>
     */
    private static function customer(Payment $payment, array $codes): array
    {
        $properties = $payment->getCollection()->getOrder()->getPropertyCollection();
        $customer = [];
        foreach (['name' => 'getPayerName', 'phone' => 'getPhone', 'email' => 'getUserEmail'] as $field => $marked) {
            $code = $codes[$field] ?? '';
            $property = $code !== '' ? $properties->getItemByOrderPropertyCode($code) : $properties->$marked();
            $value = $property?->getValue();
            $value = is_array($value) ? reset($value) : $value;
            $value = is_scalar($value) ? self::short(trim((string) $value)) : '';
            if ($value !== '') {
                $customer[$field] = $value;
            }
        }
        return $customer;
    }

    /** At most 250 characters; what is no UTF-8 is left to JSON_INVALID_UTF8_SUBSTITUTE. */
    private static function short(string $text): string
    {
        return preg_match('/^.{0,250}/us', $text, $part) === 1 ? $part[0] : substr($text, 0, 250);
    }
}
