<?php

// php tests/bitrix/run.php [WORD]: the Bitrix handler against a model of priorgate and Bitrix. Any warning is a failure.

declare(strict_types=1);

namespace Sale\Handlers\PaySystem {

    // CLI has no headers: the handler's unqualified calls come here.
    function header(string $line): void
    {
        \Sent::$headers[] = $line;
    }

    function http_response_code(int $status): void
    {
        \Sent::$status = $status;
    }
}

namespace {

    error_reporting(E_ALL);
    ini_set('display_errors', 'stderr');
    date_default_timezone_set('UTC');
    set_error_handler(static function (int $level, string $message, string $file, int $line): never {
        throw new ErrorException($message, 0, $level, $file, $line);
    });

    require __DIR__ . '/stubs/main.php';
    require __DIR__ . '/stubs/sale.php';
    require __DIR__ . '/stubs/paysystem.php';
    require __DIR__ . '/stubs/store.php';
    require __DIR__ . '/../../examples/bitrix/priorgate/handler.php';
    require __DIR__ . '/harness.php';
    $APPLICATION = new Buffer();
    foreach (glob(__DIR__ . '/cases/*.php') as $cases) {
        require $cases;
    }

    function remove(string $dir): void
    {
        foreach (scandir($dir) as $name) {
            if ($name !== '.' && $name !== '..') {
                is_dir("$dir/$name") ? remove("$dir/$name") : unlink("$dir/$name");
            }
        }
        rmdir($dir);
    }

    $failed = $skipped = 0;
    $ran = 0;
    foreach (Tests::$all as $sentence => $body) {
        if (isset($argv[1]) && !str_contains($sentence, $argv[1])) {
            continue;
        }
        $dir = sys_get_temp_dir() . '/priorgate-bitrix-' . bin2hex(random_bytes(6));
        mkdir($dir, 0700);
        $ran++;
        $started = microtime(true);
        try {
            $body($dir);
        } catch (Skipped) {
            $skipped++;
        } catch (Throwable $error) {
            $failed++;
            echo "FAILED: $sentence\n  ", $error->getMessage(), "\n";
            foreach ($error->getTrace() as $frame) {
                if (str_contains($frame['file'] ?? '', 'bitrix')) {
                    echo '    ', basename($frame['file']), ':', $frame['line'] ?? 0, "\n";
                }
            }
            while (ob_get_level() > 0) {
                ob_end_clean();
            }
        }
        gc_collect_cycles();
        if (getenv("SLOW") && microtime(true) - $started > 0.5) {
            printf("%.1f s: %s\n", microtime(true) - $started, $sentence);
        }
        remove($dir);
    }
    echo "$ran tests, ", Tests::$assertions, " assertions, $failed failed, $skipped skipped, PHP ", PHP_VERSION, "\n";
    exit($failed === 0 && $ran > 0 ? 0 : 1);
}
