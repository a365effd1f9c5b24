<?php

declare(strict_types=1);

namespace Sale\Handlers\PaySystem\Priorgate;

/** The pay system's form or a file that it names is wrong. The message is for the shop's administrator. */
final class ConfigError extends \RuntimeException
{
}
