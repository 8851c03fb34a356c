<?php
// Asks the one who runs this script (see `run`).
function step(string $what): void {
    echo "@ $what\n";
    flush();
    fgets(STDIN);
}

function is($got, $expected): void {
    if ($got !== $expected) throw new Exception('expected ' . var_export($expected, true) . ', got ' . var_export($got, true));
}

// The result of an action, tried until it throws no more.
function again(callable $action, float $seconds = 15) {
    $deadline = microtime(true) + $seconds;
    while (true) {
        try {
            return $action();
        } catch (Exception $error) {
            if (microtime(true) > $deadline) throw $error;
            usleep(20000);
        }
    }
}
