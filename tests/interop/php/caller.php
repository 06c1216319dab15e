<?php
// A plain PHP caller: what Workerman's Text protocol puts on the wire, without Workerman.
// Usage: php caller.php ADDRESS TASKS MODE, MODE "kept" or "each". Prints how many replies were right.
[$_, $address, $tasks, $mode] = $argv;

$alphabet = ['a', '/', '"', '\\', "\n", "\r\n", "\t", "\u{0}", '한국어', '작업 완료', '😀', "\u{2028}", 'é'];
mt_srand(7);

function text(int $length, array $alphabet): string {
    $text = '';
    while (strlen($text) < $length) {
        $text .= $alphabet[mt_rand(0, count($alphabet) - 1)];
    }
    return $text;
}

$right = 0;
$connection = null;
for ($i = 0; $i < $tasks; $i++) {
    $contents = text($i % 100 == 0 ? 200000 : mt_rand(0, 300), $alphabet);
    $task = ['function' => 'send_mail', 'args' => ['from' => "a$i@x", 'to' => 'b@x', 'contents' => $contents]];
    if ($connection === null || $mode === 'each') {
        $connection = stream_socket_client("tcp://$address", $code, $message, 5);
        stream_set_timeout($connection, 20);
    }
    $frame = json_encode($task) . "\n";
    for ($sent = 0; $sent < strlen($frame);) {
        $sent += fwrite($connection, substr($frame, $sent));
    }
    $line = '';
    while (!str_ends_with($line, "\n") && ($part = fgets($connection)) !== false) {
        $line .= $part;
    }
    $reply = json_decode(rtrim($line, "\r\n"), true);
    if ($reply === ['from' => "a$i@x", 'length' => strlen($contents), 'contents' => $contents]) {
        $right++;
    }
}
echo $right, "\n";
