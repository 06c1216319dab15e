<?php
// The Workerman page's task worker. Usage: WORKERMAN_DIR=... php workerman.php PORT COUNT
use Workerman\Worker;

spl_autoload_register(function ($class) {
    $file = getenv('WORKERMAN_DIR') . '/src/' . str_replace('\\', '/', substr($class, strlen('Workerman\\'))) . '.php';
    if (is_file($file)) {
        require $file;
    }
});

function echo_text($args) {
    return $args['text'];
}

$functions = ['echo' => 'echo_text'];
$worker = new Worker('Text://127.0.0.1:' . $argv[1]);
$worker->count = (int) $argv[2];
$worker->onMessage = function ($connection, $data) use ($functions) {
    $task = json_decode($data, true);
    $connection->send(json_encode($functions[$task['function']]($task['args'])));
};
Worker::$pidFile = sys_get_temp_dir() . '/gtask-bench-' . $argv[1] . '.pid';
Worker::$logFile = '/dev/null';
Worker::$command = 'start';
Worker::runAll();
