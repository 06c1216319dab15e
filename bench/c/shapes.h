/* The shapes of tasks: what is asked, and what the right reply is.
 *
 * `$` stands for the text. A reply is what PHP's json_encode and ujson write: no spaces, and \uXXXX
 * in lower case for what is not ASCII. None is longer than its request.
 */
#include <string.h>

struct shape {
    const char *name, *function, *args, *result;
    const char *filler; /* what the text repeats: ASCII, and characters of three bytes in UTF-8 */
    long size;          /* bytes of the text, where --size does not say */
};

static const struct shape shapes[] = {
    {"page", "send_mail",
     "{\"from\":\"alice@example.org\",\"to\":\"bob@example.org\",\"contents\":\"$\"}",
     "{\"sent\":1,\"contents\":\"$\"}", "x", 40},
    {"text", "echo", "{\"text\":\"$\"}", "\"$\"", "x", 62},
    {"list", "send_list", "[\"alice@example.org\",\"bob@example.org\",\"$\"]",
     "{\"sent\":1,\"contents\":\"$\"}", "x", 40},
    {"keys", "send_letter",
     "{\"number\":1001,\"from\":\"alice@example.org\",\"to\":\"bob@example.org\",\"cc\":null,"
     "\"subject\":\"Your order\",\"contents\":\"$\",\"charset\":\"utf-8\",\"html\":false,"
     "\"priority\":3,\"after\":0.5}",
     "{\"sent\":1,\"contents\":\"$\"}", "x", 40},
    {"nested", "send_many",
     "{\"mails\":[{\"to\":[\"bob@example.org\",\"carol@example.org\"],\"at\":{\"day\":1,"
     "\"hours\":[9,17]}},{\"to\":[\"dave@example.org\"],\"at\":{\"day\":2,\"hours\":[]}}],"
     "\"options\":{\"retry\":{\"times\":3,\"after\":[1,2.5,5]},\"html\":true,\"cc\":null},"
     "\"contents\":\"$\"}",
     "{\"mails\":[{\"to\":[\"bob@example.org\",\"carol@example.org\"],\"at\":{\"day\":1,"
     "\"hours\":[9,17]}},{\"to\":[\"dave@example.org\"],\"at\":{\"day\":2,\"hours\":[]}}],"
     "\"options\":{\"retry\":{\"times\":3,\"after\":[1,2.5,5]},\"html\":true,\"cc\":null},"
     "\"contents\":\"$\"}",
     "x", 40},
    {"korean", "echo", "{\"text\":\"$\"}", "\"$\"",
     "보내신 메일은 모두 잘 도착했습니다. 내일 아침에 다시 확인해 주세요. ", 1000},
};
enum { SHAPES = sizeof shapes / sizeof *shapes };
