<?php

// The few classes of Bitrix's main module that the handler uses, with the current core's signatures. Written for these
// tests; behaviour only as far as the handler can see it.

declare(strict_types=1);

namespace Bitrix\Main {

    class Error
    {
        public function __construct(protected $message, protected $code = 0, protected $customData = null)
        {
        }

        public function getMessage()
        {
            return $this->message;
        }

        public function getCode()
        {
            return $this->code;
        }
    }

    class ErrorCollection
    {
        /** @var list<Error> */
        public array $values = [];

        public function clear()
        {
            $this->values = [];
        }
    }

    class Result
    {
        protected $errors;
        protected $data = [];

        public function __construct()
        {
            $this->errors = new ErrorCollection();
        }

        public function isSuccess()
        {
            return $this->errors->values === [];
        }

        public function addError(Error $error)
        {
            $this->errors->values[] = $error;
            return $this;
        }

        public function addErrors(array $errors)
        {
            array_push($this->errors->values, ...$errors);
            return $this;
        }

        public function getErrors()
        {
            return $this->errors->values;
        }

        public function getErrorMessages()
        {
            return array_map(static fn (Error $error) => $error->getMessage(), $this->errors->values);
        }

        public function getErrorCollection()
        {
            return $this->errors;
        }
    }

    class Server
    {
        public function __construct(private array $values)
        {
        }

        public function get($name)
        {
            return $this->values[$name] ?? null;
        }
    }

    class Request implements \ArrayAccess
    {
        public function __construct(private array $query, private Server $server)
        {
        }

        public function get($name)
        {
            return $this->query[$name] ?? null;
        }

        public function getServer()
        {
            return $this->server;
        }

        public function toArray()
        {
            return $this->query;
        }

        public function offsetExists(mixed $offset): bool
        {
            return isset($this->query[$offset]);
        }

        public function offsetGet(mixed $offset): mixed
        {
            return $this->query[$offset] ?? null;
        }

        public function offsetSet(mixed $offset, mixed $value): void
        {
            throw new \LogicException('readonly');
        }

        public function offsetUnset(mixed $offset): void
        {
            throw new \LogicException('readonly');
        }
    }

    class HttpRequest extends Request
    {
        /** What the tests put in place of php://input. */
        public static ?string $input = null;

        public static function getInput()
        {
            return self::$input ?? file_get_contents('php://input');
        }
    }

    class Application
    {
        public static DB\Connection $connection;
        public static string $documentRoot = '/var/www/html';

        public static function getConnection($name = '')
        {
            return self::$connection;
        }

        public static function getDocumentRoot()
        {
            return self::$documentRoot;
        }
    }
}

namespace Bitrix\Main\Type {

    class DateTime
    {
        public function __construct(private ?int $time = null)
        {
            $this->time ??= time();
        }

        public function __toString(): string
        {
            return date('Y-m-d H:i:s', $this->time);
        }
    }
}

namespace Bitrix\Main\Localization {

    class Loc
    {
        public static string $language = 'en';
        /** @var array<string, array<string, string>> */
        private static array $messages = [];
        /** @var list<string> asked for, but in no file */
        public static array $missing = [];

        public static function loadMessages($file)
        {
            for ($base = dirname($file); !is_dir("$base/lang"); $base = dirname($base)) {
                if ($base === '/') {
                    return;
                }
            }
            foreach (['ru', 'en'] as $language) {
                $path = "$base/lang/$language" . substr($file, strlen($base));
                if (is_file($path)) {
                    self::$messages[$language] = self::read($path) + (self::$messages[$language] ?? []);
                }
            }
        }

        public static function getMessage($code, $replace = null, $language = null)
        {
            $message = self::$messages[$language ?? self::$language][$code] ?? null;
            if ($message === null) {
                self::$missing[] = $code;
                return null;
            }
            return strtr($message, $replace ?? []);
        }

        /** @return array<string, string> */
        public static function read(string $path): array
        {
            $MESS = [];
            include $path;
            return $MESS;
        }
    }
}

namespace Bitrix\Main\DB {

    class SqlQueryException extends \Exception
    {
    }

    class Result
    {
        public function __construct(private \SQLite3Result $result)
        {
        }

        public function fetch()
        {
            return $this->result->fetchArray(SQLITE3_ASSOC);
        }
    }

    class SqlHelper
    {
        public function forSql($value, $maxLength = 0)
        {
            return \SQLite3::escapeString($value);
        }
    }

    /** SQLite; the named locks are files, so that two processes see each other's. */
    class Connection
    {
        private \SQLite3 $db;
        /** @var array<string, resource> */
        private array $locks = [];
        /** Statements that contain this fail. */
        public string $broken = '';

        public function __construct(private string $file)
        {
            $this->db = new \SQLite3($file);
            $this->db->busyTimeout(5000);
            $this->db->enableExceptions(true);
            // Nobody pulls the plug of a test.
            $this->db->exec("PRAGMA synchronous = OFF; PRAGMA journal_mode = MEMORY");
        }

        public function lock($name, $timeout = 0)
        {
            $file = fopen($this->file . '.' . md5($name) . '.lock', 'c');
            $end = microtime(true) + $timeout;
            while (!flock($file, LOCK_EX | LOCK_NB)) {
                if (microtime(true) >= $end) {
                    return false;
                }
                usleep(10_000);
            }
            $this->locks[$name] = $file;
            return true;
        }

        public function unlock($name)
        {
            unset($this->locks[$name]);
            return true;
        }

        public function query($sql)
        {
            if ($this->broken !== '' && str_contains($sql, $this->broken)) {
                throw new SqlQueryException("broken by the test: $this->broken");
            }
            try {
                return new Result($this->db->query($sql));
            } catch (\Exception $error) {
                throw new SqlQueryException($error->getMessage() . ": $sql");
            }
        }

        public function queryExecute($sql)
        {
            $this->query($sql);
        }

        public function isTableExists($tableName)
        {
            return (bool) $this->query("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = '$tableName'")->fetch();
        }

        public function getSqlHelper()
        {
            return new SqlHelper();
        }
    }
}
