"""The tasks that the benchmarks call; c/shapes.h has what they are asked and what they answer."""

from __future__ import annotations

import os
import time

from gtask import task


@task
def send_mail(from_, to, contents):
    return {"sent": 1, "contents": contents}


@task
def echo(text):
    return text


@task
def send_list(from_, to, contents):
    return {"sent": 1, "contents": contents}


@task
def send_letter(number, from_, to, cc, subject, contents, charset, html, priority, after):
    return {"sent": 1, "contents": contents}


@task
def send_many(mails, options, contents):
    return {"mails": mails, "options": options, "contents": contents}


@task
def nap(seconds):
    time.sleep(seconds)
    return os.getpid()


@task
def pid():
    return os.getpid()
