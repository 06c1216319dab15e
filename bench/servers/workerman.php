<?php
// The Workerman page's task worker; with a third argument, its websocket front end before it.
// Usage: WORKERMAN_DIR=... php workerman.php PORT COUNT [TASK_PORT]
use Workerman\Connection\AsyncTcpConnection;
use Workerman\Worker;

spl_autoload_register(function ($class) {
    $file = getenv('WORKERMAN_DIR') . '/src/' . strtr(substr($class, strlen('Workerman\\')), '\\', '/') . '.php';
    if (is_file($file)) {
        require $file;
    }
});

[, $port, $count] = $argv;
$task_port = $argv[3] ?? $port;

$functions = [
    'send_mail' => fn($args) => ['sent' => 1, 'contents' => $args['contents']],
    'echo' => fn($args) => $args['text'],
    'send_list' => fn($args) => ['sent' => 1, 'contents' => $args[2]],
    'send_letter' => fn($args) => ['sent' => 1, 'contents' => $args['contents']],
    'send_many' => fn($args) => ['mails' => $args['mails'], 'options' => $args['options'], 'contents' => $args['contents']],
];
$worker = new Worker("Text://127.0.0.1:$task_port");
$worker->count = (int) $count;
$worker->onMessage = function ($connection, $data) use ($functions) {
    $task = json_decode($data, true);
    $connection->send(json_encode($functions[$task['function']]($task['args'])));
};

if ($task_port !== $port) {
    $web = new Worker("websocket://127.0.0.1:$port");
    $web->onMessage = function ($ws, $message) use ($task_port) {
        $task = new AsyncTcpConnection("Text://127.0.0.1:$task_port");
        $args = ['from' => 'alice@example.org', 'to' => 'bob@example.org', 'contents' => $message];
        $task->send(json_encode(['function' => 'send_mail', 'args' => $args]));
        $task->onMessage = function ($task, $result) use ($ws) {
            $task->close();
            $ws->send($result);
        };
        $task->connect();
    };
}

Worker::$pidFile = sys_get_temp_dir() . "/gtask-bench-$port.pid";
Worker::$statusFile = sys_get_temp_dir() . "/gtask-bench-$port.status";
Worker::$logFile = '/dev/null';
Worker::$command = 'start';
Worker::runAll();
