<?php

declare(strict_types=1);

namespace Sale\Handlers\PaySystem\Priorgate;

/** One line that only PHP may read: the delivery secret, or the token of a TCP caller. Never the database. */
final class SecretFile
{
    private const MAX = 1024;

    /** @throws ConfigError with what to do; nothing of the content is repeated */
    public static function read(string $path, string $documentRoot): string
    {
        if (!str_starts_with($path, '/')) {
            throw new ConfigError("$path: give the absolute path of a file outside the web root");
        }
        clearstatcache();
        $real = realpath($path);
        if ($real === false || !is_file($real)) {
            throw new ConfigError("$path: no such file, or PHP may not read its directory (see open_basedir)");
        }
        $root = realpath($documentRoot);
        if ($root !== false && $root !== '/' && str_starts_with($real, rtrim($root, '/') . '/')) {
            throw new ConfigError("$path lies inside the web root $root: move it out, the web server might serve it");
        }
        if (((int) fileperms($real) & 0007) !== 0) {
            throw new ConfigError("$path is open to every user: chmod 0440, owner root, group of PHP");
        }
        $text = is_readable($real) ? file_get_contents($real, false, null, 0, self::MAX + 1) : false;
        if ($text === false) {
            throw new ConfigError("$path: PHP may not read it; chgrp it to the group of PHP");
        }
        $line = trim($text);
        if ($line === '' || strlen($text) > self::MAX || preg_match('/^[\x21-\x7e]+$/D', $line) !== 1) {
            throw new ConfigError("$path: expected one line of visible characters");
        }
        return $line;
    }
}
