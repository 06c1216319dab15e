<?php
// A plain PHP Text server, one connection at a time: answers as the Workerman page's worker does.
$server = stream_socket_server('tcp://127.0.0.1:0', $code, $message);
echo stream_socket_get_name($server, false), "\n";
while ($connection = @stream_socket_accept($server, 30)) {
    while (($line = fgets($connection)) !== false) {
        $task = json_decode(rtrim($line, "\r\n"), true);
        $reply = json_encode(['did' => $task['function'], 'args' => $task['args']]) . "\n";
        fwrite($connection, $reply);
    }
    fclose($connection);
}
