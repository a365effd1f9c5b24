<?php

// Bitrix's pay-system layer as the handler meets it: what the Service does before and after each call is part of what is
// tested. Written for these tests, after the current core's behaviour.

declare(strict_types=1);

namespace Bitrix\Sale\PaySystem {

    use Bitrix\Main;
    use Bitrix\Main\Request;
    use Bitrix\Sale\Order;
    use Bitrix\Sale\Payment;

    interface IRefund
    {
        public function refund(Payment $payment, $refundableSum);
    }

    interface ICheckable
    {
        public function check(Payment $payment);
    }

    final class Error extends Main\Error
    {
        private bool $forBuyer = false;

        public static function create($message, $code = 0, $customData = null): self
        {
            return new self($message, $code, $customData);
        }

        public static function createForBuyer($message, $code = 0, $customData = null): self
        {
            $error = new self($message, $code, $customData);
            $error->forBuyer = true;
            return $error;
        }

        public function isVisibleForBuyer(): bool
        {
            return $this->forBuyer;
        }
    }

    class Logger
    {
        /** @var list<string> */
        public static array $errors = [];

        public static function addError($error)
        {
            self::$errors[] = $error;
        }
    }

    class ServiceResult extends Main\Result
    {
        public const MONEY_COMING = 'money_coming';
        public const MONEY_LEAVING = 'money_leaving';

        private $psData = [];
        private $resultApplied = true;
        private $operationType = null;
        private $template = '';
        private $paymentUrl = '';

        public function setPsData($psData)
        {
            $this->psData = $psData;
        }

        public function getPsData()
        {
            return $this->psData;
        }

        public function isResultApplied()
        {
            return $this->resultApplied;
        }

        public function setResultApplied($resultApplied)
        {
            $this->resultApplied = $resultApplied;
        }

        public function setOperationType($operationType)
        {
            $this->operationType = $operationType;
        }

        public function getOperationType()
        {
            return $this->operationType;
        }

        public function setTemplate($template)
        {
            $this->template = $template;
        }

        public function getTemplate()
        {
            return $this->template;
        }

        public function setPaymentUrl($paymentUrl): void
        {
            $this->paymentUrl = $paymentUrl;
        }

        public function getPaymentUrl(): string
        {
            return $this->paymentUrl;
        }

        public function getBuyerErrorMessages(): array
        {
            $visible = array_filter($this->getErrors(), static fn ($e) => $e instanceof Error && $e->isVisibleForBuyer());
            return array_values(array_map(static fn ($error) => $error->getMessage(), $visible));
        }
    }

    final class Context
    {
        /** The page that is displayed. */
        public static string $url = 'https://shop.example/personal/order/payment/?ORDER_ID=1';

        public function getUrl(): string
        {
            return self::$url;
        }
    }

    abstract class BaseServiceHandler
    {
        protected $extraParams = [];

        public function __construct(protected $handlerType, protected Service $service)
        {
        }

        abstract public function initiatePay(Payment $payment, ?Request $request = null);

        abstract public function getCurrencyList();

        public function showTemplate(?Payment $payment = null, $template = '')
        {
            $result = new ServiceResult();
            $params = $this->extraParams;
            ob_start();
            require Manager::DIRECTORY . "/template/$template.php";
            $result->setTemplate((string) ob_get_clean());
            return $result;
        }

        public function setExtraParams(array $values)
        {
            $this->extraParams = $values;
        }

        protected function getBusinessValue(?Payment $payment, $code)
        {
            return trim((string) (Manager::$values[$code] ?? ''));
        }
    }

    abstract class ServiceHandler extends BaseServiceHandler
    {
        public static function getIndicativeFields()
        {
            return [];
        }

        public static function isMyResponse(Request $request, $paySystemId)
        {
            foreach (static::getIndicativeFields() as $key => $value) {
                if (!isset($request[$key]) || $value != $request[$key]) {
                    return false;
                }
            }
            return static::isMyResponseExtended($request, $paySystemId);
        }

        protected static function isMyResponseExtended(Request $request, $paySystemId)
        {
            return true;
        }

        abstract public function processRequest(Payment $payment, Request $request);

        abstract public function getPaymentIdFromRequest(Request $request);

        public function sendResponse(ServiceResult $result, Request $request)
        {
            return '';
        }
    }

    class Service
    {
        private ServiceHandler $handler;
        private Context $context;

        public function __construct(private array $fields)
        {
            $this->handler = new \Sale\Handlers\PaySystem\PriorgateHandler('LOCAL', $this);
            $this->context = new Context();
        }

        public function getField($name)
        {
            return $this->fields[$name] ?? null;
        }

        public function getContext(): Context
        {
            return $this->context;
        }

        public function initiatePay(Payment $payment, ?Request $request = null)
        {
            $result = $this->handler->initiatePay($payment, $request);
            $data = $result->getPsData();
            if ($data) {
                $set = $payment->setFields($data);
                $set = $set->isSuccess() ? $payment->getCollection()->getOrder()->save() : $set;
                $result->addErrors($set->getErrors());
            }
            return $result;
        }

        /** From the order's page always with 0: all of it. */
        public function refund(Payment $payment, $refundableSum = 0)
        {
            if (!$payment->isPaid()) {
                return (new Main\Result())->addError(new Main\Error('the payment is not paid'));
            }
            if ($refundableSum == 0) {
                $refundableSum = $payment->getSum();
            }
            return $this->handler->refund($payment, $refundableSum);
        }

        public function processRequest(Request $request)
        {
            $answer = new Main\Result();
            $paymentId = $this->handler->getPaymentIdFromRequest($request);
            if (empty($paymentId)) {
                return $answer->addError(new Main\Error('no payment'));
            }
            [$orderId, $paymentId] = Manager::getIdsByPayment($paymentId);
            $order = Order::load($orderId);
            if (!$order || $order->isCanceled()) {
                return $answer->addError(new Main\Error('no order, or a cancelled one'));
            }
            $payment = $order->getPaymentCollection()->getItemById($paymentId);
            $result = $this->handler->processRequest($payment, $request);
            if ($result->isSuccess()) {
                $paid = [ServiceResult::MONEY_COMING => 'Y', ServiceResult::MONEY_LEAVING => 'N'];
                $paid = $paid[(string) $result->getOperationType()] ?? null;
                if ($paid === 'N') {
                    $payment->setFieldsNoDemand(['IS_RETURN' => Payment::RETURN_PS]);
                }
                $set = $paid === null ? new Main\Result() : $payment->setPaid($paid);
                $data = $payment->setFields($result->getPsData());
                $saved = $order->save();
                if (!$set->isSuccess() || !$data->isSuccess() || !$saved->isSuccess()) {
                    $result->setResultApplied(false);
                }
            } else {
                $result->setResultApplied(false);
                $payment->setFields(['MARKED' => 'Y', 'REASON_MARKED' => implode("\n", $result->getErrorMessages())]);
                $order->save();
            }
            $this->handler->sendResponse($result, $request);
            return $answer;
        }

        /** The errors of a check are dropped. */
        public function check(Payment $payment)
        {
            $result = new ServiceResult();
            $check = $this->handler->check($payment);
            if ($check instanceof ServiceResult && $check->isSuccess()) {
                $result->addErrors($payment->setFields($check->getPsData())->getErrors());
                if ($check->getOperationType() === ServiceResult::MONEY_COMING) {
                    $payment->setPaid('Y');
                }
                $result->addErrors($payment->getCollection()->getOrder()->save()->getErrors());
            }
            return $result;
        }
    }

    final class Manager
    {
        public const HANDLER_AVAILABLE_TRUE = true;
        public const DIRECTORY = __DIR__ . '/../../../examples/bitrix/priorgate';
        public const PAY_SYSTEM = 7;

        /** @var array<string, string> the form */
        public static array $values = [];

        public static function getObjectById($id)
        {
            return new Service(['ID' => $id, 'ENTITY_REGISTRY_TYPE' => 'ORDER']);
        }

        public static function getIdsByPayment($paymentId, $registryType = 'ORDER'): array
        {
            $row = Payment::getList(['select' => ['ID', 'ORDER_ID'], 'filter' => ['=ID' => $paymentId]])->fetch();
            return $row ? [(int) $row['ORDER_ID'], (int) $row['ID']] : [0, 0];
        }

        /** What sale_ps_result.php does: 200 to everything but what the handler says itself. */
        public static function answer(Request $request): void
        {
            if (\Sale\Handlers\PaySystem\PriorgateHandler::isMyResponse($request, self::PAY_SYSTEM)) {
                self::getObjectById(self::PAY_SYSTEM)->processRequest($request);
            }
        }
    }
}
