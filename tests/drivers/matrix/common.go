// What the Go programs of the matrix share: README.md beside this says what each program does.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"
)

const (
	insertSQL      = "insert into matrix_entry (driver, worker, n) values ($1, $2, $3)"
	countSQL       = "select count(*) from matrix_entry where driver = $1 and worker = $2 and n = $3"
	copyRows       = 40
	many           = 1000000 // more rounds than there can be: a batch numbers its rows beyond them
	warmUp         = 20
	pace           = 20 * time.Millisecond
	cancelAfter    = 100 * time.Millisecond
	sleepLimit     = 4 * time.Second
	notifyPatience = 2 * time.Second
)

var name = os.Getenv("MATRIX_NAME")

func stateSQL() string {
	return os.Getenv("MATRIX_STATE")
}

// Worker is one worker's ledger and what it has seen.
type Worker struct {
	Rounds       int `json:"rounds"`
	Switches     int `json:"switches"`
	Acknowledged int `json:"acknowledged"`
	Lost         int `json:"lost"`

	name               string
	numbers            []int64
	server, statements string
	last               bool
}

func conninfo() string {
	tls := "sslmode=disable"
	if ca := os.Getenv("MATRIX_CA"); ca != "" {
		tls = "sslmode=verify-full sslrootcert=" + ca
	}
	return fmt.Sprintf("host=%s port=%s user=%s password=%s dbname=%s %s", os.Getenv("MATRIX_HOST"), os.Getenv("MATRIX_PORT"),
		os.Getenv("MATRIX_USER"), os.Getenv("MATRIX_PASSWORD"), os.Getenv("MATRIX_DATABASE"), tls)
}

func setUp() []string {
	return strings.Split(os.Getenv("MATRIX_SET_UP"), ";")
}

// check ends the worker with an error.
func check(err error) {
	if err != nil {
		panic(err)
	}
}

func expect(what string, got, wanted interface{}) {
	if got != wanted {
		panic(fmt.Errorf("%s is %v instead of %v", what, got, wanted))
	}
}

// next is true for each round; the last one begins when the run is over.
func (w *Worker) next() bool {
	if w.last {
		return false
	}
	if w.Rounds > 0 {
		time.Sleep(pace)
	}
	_, err := os.Stat(os.Getenv("MATRIX_STOP"))
	w.last = err == nil
	w.Rounds++
	return true
}

func (w *Worker) acknowledge(numbers ...int64) {
	w.numbers = append(w.numbers, numbers...)
}

func (w *Worker) checkState(state, server, statements, mood string) {
	expect("an enum", mood, "calm")
	expect("the session's state", state, os.Getenv("MATRIX_WANTED"))
	if w.server != "" && w.server != server {
		w.Switches++
	}
	w.server = server
	if w.Rounds > warmUp+1 {
		expect("the list of prepared statements", statements, w.statements)
	}
	w.statements = statements
}

// copied gives the numbers of a round's COPY.
func (w *Worker) copied() []int64 {
	numbers := make([]int64, copyRows)
	for i := range numbers {
		numbers[i] = int64(w.Rounds*copyRows + i)
	}
	return numbers
}

func guarded(w *Worker, body func(*Worker)) (err string) {
	defer func() {
		if thrown := recover(); thrown != nil {
			err = fmt.Sprintf("%s: %v", w.name, thrown)
			fmt.Fprintln(os.Stderr, err)
		}
	}()
	body(w)
	return ""
}

// run lets all bodies work until the run is over, writes the ledger and the summary, and ends the program.
func run(bodies map[string]func(*Worker)) {
	workers, errors := map[string]*Worker{}, []string{}
	var group sync.WaitGroup
	var lock sync.Mutex
	for name, body := range bodies {
		w := &Worker{name: name}
		workers[name] = w
		group.Add(1)
		go func(body func(*Worker)) {
			defer group.Done()
			if err := guarded(w, body); err != "" {
				lock.Lock()
				defer lock.Unlock()
				errors = append(errors, err)
			}
		}(body)
	}
	group.Wait()
	file, err := os.Create(os.Getenv("MATRIX_LEDGER"))
	check(err)
	ledger := bufio.NewWriter(file)
	for _, w := range workers {
		w.Acknowledged = len(w.numbers)
		for _, n := range w.numbers {
			fmt.Fprintf(ledger, "%s %d\n", w.name, n)
		}
	}
	check(ledger.Flush())
	check(json.NewEncoder(os.Stdout).Encode(map[string]interface{}{"name": name, "errors": errors, "workers": workers}))
	if len(errors) > 0 {
		os.Exit(1)
	}
}
