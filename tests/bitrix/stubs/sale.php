<?php

// The few classes of Bitrix's sale module that the handler uses, with the current core's signatures, over a small order
// store. Written for these tests; what matters of the core's habits is here: PAID and IS_RETURN call the pay system
// before anything is saved, a field that does not change fires nothing, one UPDATE saves what has changed.

declare(strict_types=1);

namespace Bitrix\Sale {

    use Bitrix\Main\Application;
    use Bitrix\Main\Error;
    use Bitrix\Main\Result;
    use Bitrix\Sale\PaySystem\ServiceResult;

    class Property
    {
        public function __construct(private mixed $value)
        {
        }

        public function getValue()
        {
            return $this->value;
        }
    }

    class PropertyCollection
    {
        public function __construct(private array $values)
        {
        }

        public function getPayerName()
        {
            return $this->getItemByOrderPropertyCode('FIO');
        }

        public function getPhone()
        {
            return $this->getItemByOrderPropertyCode('PHONE');
        }

        public function getUserEmail()
        {
            return $this->getItemByOrderPropertyCode('EMAIL');
        }

        public function getItemByOrderPropertyCode($code)
        {
            return isset($this->values[$code]) ? new Property($this->values[$code]) : null;
        }
    }

    class BasketItem
    {
        public function __construct(private string $name, private float $price, private float $quantity)
        {
        }

        public function getPrice()
        {
            return $this->price;
        }

        public function getQuantity()
        {
            return $this->quantity;
        }

        public function getField($name)
        {
            return $name === 'NAME' ? $this->name : null;
        }
    }

    class PaymentCollection
    {
        /** @var array<int, Payment> */
        public array $items = [];

        public function __construct(private Order $order)
        {
        }

        public function getOrder()
        {
            return $this->order;
        }

        public function getItemById($id)
        {
            return $this->items[(int) $id] ?? null;
        }
    }

    class Order
    {
        /** Saves to fail, as a database that is locked or a module that objects makes them. */
        public static int $failSaves = 0;
        private PaymentCollection $payments;

        private function __construct(private array $fields)
        {
            $this->payments = new PaymentCollection($this);
        }

        public static function load($id)
        {
            $row = Application::getConnection()->query('SELECT * FROM b_sale_order WHERE ID = ' . (int) $id)->fetch();
            if (!$row) {
                return null;
            }
            $order = new self($row);
            $payments = Application::getConnection()
                ->query('SELECT * FROM b_sale_order_payment WHERE ORDER_ID = ' . (int) $id);
            while ($payment = $payments->fetch()) {
                $order->payments->items[(int) $payment['ID']] = new Payment($payment, $order->payments);
            }
            return $order;
        }

        public function getId()
        {
            return (int) $this->fields['ID'];
        }

        public function isCanceled()
        {
            return $this->fields['CANCELED'] === 'Y';
        }

        public function getPaymentCollection()
        {
            return $this->payments;
        }

        public function getPropertyCollection()
        {
            return new PropertyCollection(json_decode($this->fields['PROPERTIES'], true));
        }

        public function getBasket()
        {
            return array_map(
                static fn (array $item) => new BasketItem($item[0], (float) $item[1], (float) $item[2]),
                json_decode($this->fields['BASKET'], true),
            );
        }

        public function getDeliveryPrice()
        {
            return (float) $this->fields['PRICE_DELIVERY'];
        }

        public function save()
        {
            $result = new Result();
            if (self::$failSaves > 0) {
                self::$failSaves--;
                return $result->addError(new Error('the order was not saved'));
            }
            foreach ($this->payments->items as $payment) {
                $payment->saveChanged();
            }
            return $result;
        }
    }

    class Payment
    {
        public const RETURN_NONE = 'N';
        public const RETURN_INNER = 'Y';
        public const RETURN_PS = 'P';

        /** @var array<string, mixed> */
        private array $changed = [];

        public function __construct(private array $fields, private PaymentCollection $collection)
        {
        }

        public static function getRegistryType()
        {
            return 'ORDER';
        }

        public static function getList(array $parameters = [])
        {
            $select = implode(', ', $parameters['select'] ?? ['*']);
            $id = (int) ($parameters['filter']['=ID'] ?? 0);
            return Application::getConnection()->query("SELECT $select FROM b_sale_order_payment WHERE ID = $id");
        }

        public function getId()
        {
            return (int) $this->fields['ID'];
        }

        public function getOrderId(): int
        {
            return (int) $this->fields['ORDER_ID'];
        }

        public function getPaymentSystemId()
        {
            return (int) $this->fields['PAY_SYSTEM_ID'];
        }

        public function getCollection()
        {
            return $this->collection;
        }

        public function getField($name)
        {
            return $this->fields[$name];
        }

        public function getSum()
        {
            return (float) $this->fields['SUM'];
        }

        public function isPaid()
        {
            return $this->fields['PAID'] === 'Y';
        }

        public function isReturn()
        {
            return $this->fields['IS_RETURN'] !== self::RETURN_NONE;
        }

        public function setFields(array $values)
        {
            $result = new Result();
            foreach ($values as $name => $value) {
                $set = $this->setField($name, $value);
                if (!$set->isSuccess()) {
                    return $result->addErrors($set->getErrors());
                }
            }
            return $result;
        }

        public function setFieldsNoDemand(array $values)
        {
            foreach ($values as $name => $value) {
                $this->put($name, $value);
            }
        }

        public function setPaid($value)
        {
            return $this->setField('PAID', $value);
        }

        public function setReturn($value)
        {
            return $this->isReturn() ? new Result() : $this->setField('IS_RETURN', $value);
        }

        public function setField($name, $value)
        {
            $limits = ['PS_STATUS' => 1, 'PS_STATUS_MESSAGE' => 250, 'PS_STATUS_DESCRIPTION' => 512, 'PS_CURRENCY' => 3];
            if (isset($limits[$name]) && preg_match_all('/./su', (string) $value) > $limits[$name]) {
                return (new Result())->addError(new Error("$name is too long"));
            }
            if ((string) $this->fields[$name] === (string) $value) {
                return new Result();
            }
            $old = $this->fields[$name];
            $this->put($name, $value);
            if ($name === 'PAID' && $value === 'Y') {
                $this->put('IS_RETURN', self::RETURN_NONE);
            }
            if ($name === 'IS_RETURN' && $value === self::RETURN_PS) {
                $refund = PaySystem\Manager::getObjectById($this->getPaymentSystemId())->refund($this);
                if (!$refund->isSuccess()) {
                    $this->fields[$name] = $old;
                    unset($this->changed[$name]);
                    return (new Result())->addErrors($refund->getErrors());
                }
                if ($refund->getOperationType() === ServiceResult::MONEY_LEAVING) {
                    return $this->setField('PAID', 'N');
                }
            }
            return new Result();
        }

        public function saveChanged()
        {
            if ($this->changed === []) {
                return;
            }
            $connection = Application::getConnection();
            $sets = [];
            foreach ($this->changed as $name => $value) {
                $sets[] = "$name = '" . $connection->getSqlHelper()->forSql((string) $value) . "'";
            }
            $id = $this->getId();
            $connection->query('UPDATE b_sale_order_payment SET ' . implode(', ', $sets) . " WHERE ID = $id");
            if (isset($this->changed['PAID'])) {
                // OnPaymentPaid, an e-mail and a fiscal receipt in a real shop.
                $connection->query("INSERT INTO receipts (PAYMENT_ID, PAID) VALUES ($id, '{$this->changed['PAID']}')");
            }
            $this->changed = [];
        }

        private function put(string $name, mixed $value): void
        {
            if (!array_key_exists($name, $this->fields)) {
                throw new \LogicException("a payment has no field $name");
            }
            $this->fields[$name] = $value;
            $this->changed[$name] = $value;
        }
    }
}
