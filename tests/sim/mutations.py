#!/usr/bin/env python3
"""Does the simulator find what it is there to find? Builds it with one deliberate fault after the other, and
demands that each is found within the seeds that the table allows (mutations.txt; its faults lie in control/flip, or
in what the simulator does in the clusters' and the proxy's place). A text that no longer stands in its file is an
error: the table is kept alive with the code.

    mutations.py [--jobs N] [NAME-PART...]     the last line says `N passed, N failed`"""
import argparse
import concurrent.futures
import glob
import os
import re
import subprocess
import sys
import tempfile
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TABLE = os.path.join(TOP, 'tests/sim/mutations.txt')
FLAGS = ['-O1', '-std=c17', '-D_GNU_SOURCE', '-w', '-I' + TOP]
BASE = ['conf/base/clock.c', 'conf/base/ensure.c', 'conf/base/error.c', 'conf/base/log.c', 'conf/base/strbuf.c']
SOUND_SEEDS = 60  # the unchanged simulator holds in so many, else a mutant's failure says nothing
LIMIT_S = 600


def sources():
    found = [os.path.relpath(path, TOP) for folder in ('tests/sim', 'control/flip', 'control/gates')
             for path in sorted(glob.glob(os.path.join(TOP, folder, '*.c')))]
    return BASE + [path for path in found if not os.path.basename(path).startswith('world')]


def read_table():
    """The table's mutations: name, seeds, and [file, old, new] for each place that changes."""
    mutations = []
    for number, line in enumerate(open(TABLE), 1):
        line = line.rstrip('\n')
        key, _, value = line.partition(': ')
        if key == 'mutation':
            mutations.append({'name': value, 'seeds': 0, 'places': []})
        elif key == 'seeds':
            mutations[-1]['seeds'] = int(value)
        elif key == 'file':
            mutations[-1]['places'].append({'file': value, '-': '', '+': ''})
        elif line[:1] in ('-', '+'):
            mutations[-1]['places'][-1][line[0]] += line[1:] + '\n'
        elif line and not line.startswith('#'):
            sys.exit('%s:%d: what is this? %s' % (TABLE, number, line))
    return mutations


def compile_file(path, text, output):
    command = ['cc', *FLAGS, '-c', '-x', 'c', '-', '-o', output]
    if text is None:
        command = ['cc', *FLAGS, '-c', os.path.join(TOP, path), '-o', output]
    done = subprocess.run(command, input=text, capture_output=True, text=True)
    return done.stderr if done.returncode != 0 else ''


def object_of(folder, path):
    return os.path.join(folder, path.replace('/', '_') + '.o')


def build(folder, name, mutation):
    """Compiles only what changes. Returns the program and what went wrong, ''."""
    changed = {}
    for place in mutation['places']:
        text = changed.get(place['file']) or open(os.path.join(TOP, place['file'])).read()
        if text.count(place['-']) != 1:
            return None, 'the old text stands %d times in %s' % (text.count(place['-']), place['file'])
        changed[place['file']] = text.replace(place['-'], place['+'])
    objects = []
    for path in sources():
        if path in changed:
            own = object_of(folder, path) + '.' + name + '.o'
            failed = compile_file(path, changed[path], own)
            if failed:
                return None, 'it does not compile: ' + failed
            objects.append(own)
        else:
            objects.append(object_of(folder, path))
    program = os.path.join(folder, 'sim.' + name)
    done = subprocess.run(['cc', *objects, '-lpthread', '-o', program], capture_output=True, text=True)
    return program, done.stderr if done.returncode != 0 else ''


def run(program, seeds):
    done = subprocess.run([program, '--seeds', '1-%d' % seeds, '--jobs', '1', '--first'], capture_output=True,
                          text=True, errors='replace', timeout=LIMIT_S)
    found = re.findall(r'^seed (\d+): (.*)$', done.stdout, re.M)
    if done.returncode == 0:
        return None, ''
    if found:
        return int(found[0][0]), found[0][1]
    return 0, 'it broke off: ' + (done.stderr.strip().split('\n') or [''])[-1]


def holds(program, seed):
    return subprocess.run([program, '--seed', str(seed)], capture_output=True, timeout=LIMIT_S).returncode == 0


def judge(folder, mutation):
    name = re.sub(r'\W+', '_', mutation['name'])
    program, wrong = build(folder, name, mutation)
    if wrong:
        return False, wrong
    seed, what = run(program, mutation['seeds'])
    os.unlink(program)
    if seed and not holds(os.path.join(folder, 'sim.sound'), seed):
        return False, 'seed %d fails without it as well' % seed
    if seed is None:
        return False, 'not found in %d seeds' % mutation['seeds']
    return True, 'seed %d of %d: %s' % (seed, mutation['seeds'], what)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--jobs', type=int, default=os.cpu_count())
    parser.add_argument('names', nargs='*')
    arguments = parser.parse_args()
    wanted = [m for m in read_table() if not arguments.names or any(n in m['name'] for n in arguments.names)]
    passed = failed = 0
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        wrong = ''.join(pool.map(lambda path: compile_file(path, None, object_of(folder, path)), sources()))
        program, unlinked = build(folder, 'sound', {'places': []})
        if wrong or unlinked:
            print(wrong, unlinked)
            print('0 passed, 1 failed')
            return 1
        seed, what = run(program, SOUND_SEEDS)
        if seed is not None:
            print('FAIL without any mutation: seed %d: %s' % (seed, what))
            failed += 1
        for mutation, (ok, words) in zip(wanted, pool.map(lambda m: judge(folder, m), wanted)):
            print('%s %-62s %s' % ('ok  ' if ok else 'FAIL', mutation['name'], words), flush=True)
            passed, failed = passed + ok, failed + (not ok)
    print('%d s' % (time.monotonic() - began))
    print('%d passed, %d failed' % (passed, failed))
    return 1 if failed or not passed else 0


sys.exit(main())
