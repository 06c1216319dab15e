<?php
// Unchanged Workerman on both sides of the wire. Usage: php workerman.php worker PORT
//                                                      php workerman.php caller PORT TASKS
use Workerman\Connection\AsyncTcpConnection;
use Workerman\Timer;
use Workerman\Worker;

spl_autoload_register(function ($class) {
    $file = getenv('WORKERMAN_DIR') . '/src/' . str_replace('\\', '/', substr($class, strlen('Workerman\\'))) . '.php';
    if (is_file($file)) {
        require $file;
    } elseif ($class === 'Workerman\\Coroutine\\Context') {
        // A package of its own, needed where there are no coroutines only to be told that all is over.
        eval('namespace Workerman\Coroutine; class Context { public static function __callStatic($name, $arguments) {} }');
    }
});
[$_, $role, $port] = $argv;
$tasks = (int) ($argv[3] ?? 0);
Worker::$pidFile = sys_get_temp_dir() . "/gtask-workerman-$role-$port.pid";
Worker::$logFile = '/dev/null';
Worker::$command = 'start';

if ($role === 'worker') {
    $worker = new Worker("Text://127.0.0.1:$port");
    $worker->count = 2;
    $worker->onMessage = function ($connection, $data) {
        $task = json_decode($data, true);
        $connection->send(json_encode(['did' => $task['function'], 'args' => $task['args']]));
    };
} else {
    $worker = new Worker();
    $worker->onWorkerStart = function () use ($port, $tasks) {
        $right = $done = 0;
        $next = 0;
        $call = function () use (&$call, &$next, &$right, &$done, $port, $tasks) {
            $i = $next++;
            $contents = str_repeat("한\n😀/\\\"", $i % 100 == 0 ? 20000 : $i % 50);
            $connection = new AsyncTcpConnection("Text://127.0.0.1:$port");
            $connection->send(json_encode([
                'function' => 'send_mail',
                'args' => ['from' => "a$i", 'to' => 'b', 'contents' => $contents],
            ]));
            $connection->onMessage = function ($connection, $result) use ($i, $contents, &$right) {
                $expected = ['from' => "a$i", 'length' => strlen($contents), 'contents' => $contents];
                $right += json_decode($result, true) === $expected;
                $connection->close();
            };
            $connection->onClose = function () use (&$call, &$next, &$done, &$right, $tasks) {
                if (++$done === $tasks) {
                    echo "right: $right\n";
                    posix_kill(posix_getppid(), SIGINT);
                } elseif ($next < $tasks) {
                    $call();
                }
            };
            $connection->connect();
        };
        for ($i = 0; $i < 20; $i++) {
            $call();
        }
    };
}
Worker::runAll();
