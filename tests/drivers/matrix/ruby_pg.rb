# ruby-pg in the matrix: README.md beside this says what each worker does.
require "json"
require "pg"

NAME = ENV["MATRIX_NAME"]
INSERT = "insert into matrix_entry (driver, worker, n) values ($1, $2, $3)"
COUNT = "select count(*) from matrix_entry where driver = $1 and worker = $2 and n = $3"
COPY_ROWS, WARM_UP, PACE_S, CANCEL_AFTER_S, NOTIFY_PATIENCE_S = 40, 20, 0.02, 0.1, 2

def expect(what, got, wanted)
  raise "#{what} is #{got.inspect} instead of #{wanted.inspect}" unless got == wanted
end

def connect
  tls = ENV["MATRIX_CA"] ? { sslmode: "verify-full", channel_binding: "require", sslrootcert: ENV["MATRIX_CA"] } : { sslmode: "disable" }
  connection = PG.connect(host: ENV["MATRIX_HOST"], port: ENV["MATRIX_PORT"], user: ENV["MATRIX_USER"],
                          password: ENV["MATRIX_PASSWORD"], dbname: ENV["MATRIX_DATABASE"], **tls)
  connection.exec(ENV["MATRIX_SET_UP"]) # several statements in one message
  connection
end

class Worker
  attr_reader :name, :rounds, :acknowledged
  attr_accessor :error, :lost

  def initialize(name)
    @name, @rounds, @switches, @lost, @acknowledged, @last = name, 0, 0, 0, [], false
  end

  # The last round begins when the run is over.
  def each_round
    until @last
      @last = File.exist?(ENV["MATRIX_STOP"])
      @rounds += 1
      yield @rounds
      sleep PACE_S
    end
  end

  def check_state(connection)
    state, server, statements, mood = connection.exec(ENV["MATRIX_STATE"]).values[0]
    expect("the session's state", state, ENV["MATRIX_WANTED"])
    expect("an enum", mood, "calm")
    @switches += 1 if @server && @server != server
    @server = server
    return unless @rounds > WARM_UP

    expect("the list of prepared statements", statements, @statements) if @statements
    @statements = statements
  end

  def summary
    { rounds: @rounds, switches: @switches, lost: @lost, acknowledged: @acknowledged.size }
  end
end

def transactions(worker)
  connection = connect
  connection.prepare("put", INSERT)
  connection.prepare("see", COUNT)
  count = ->(n) { connection.exec_prepared("see", [NAME, worker.name, n]).getvalue(0, 0) }
  worker.each_round do |n|
    connection.transaction do
      connection.exec_prepared("put", [NAME, worker.name, n])
      expect("the count in the transaction", count.(n), "1")
    end
    worker.acknowledged << n
    begin
      connection.transaction do
        connection.exec_prepared("put", [NAME, worker.name, -n])
        connection.exec_params("select 1 / $1::int", [0])
      end
    rescue PG::DivisionByZero
      nil
    end
    expect("what was rolled back", count.(-n), "0")
    expect("the last commit", count.(n), "1")
    binary = connection.exec_params("select $1::int8", [{ value: [n].pack("q>"), format: 1, type: 20 }], 1)
    expect("what comes back in binary", binary.getvalue(0, 0).unpack1("q>"), n)
    connection.enter_pipeline_mode
    10.times { |i| connection.send_query_params("select $1::int + 1", [i]) }
    connection.pipeline_sync
    got = Array.new(10) { connection.get_result.getvalue(0, 0).to_i.tap { connection.get_result } }
    connection.get_result
    connection.exit_pipeline_mode
    expect("what a pipeline gives", got, (1..10).to_a)
    worker.check_state(connection)
  end
end

def copy(worker)
  connection = connect
  worker.each_round do |n|
    numbers = (n * COPY_ROWS...(n + 1) * COPY_ROWS).to_a
    connection.copy_data("copy matrix_entry (driver, worker, n) from stdin") do
      numbers.each { |number| connection.put_copy_data("#{NAME}\t#{worker.name}\t#{number}\n") }
    end
    worker.acknowledged.concat(numbers)
    got = ""
    connection.copy_data("copy (select n from matrix_entry where driver = '#{NAME}' and worker = '#{worker.name}' " \
                         "and n >= #{numbers[0]} order by n) to stdout") do
      while (line = connection.get_copy_data)
        got << line
      end
    end
    expect("what COPY gives back", got, numbers.map { |number| "#{number}\n" }.join)
    worker.check_state(connection)
  end
end

def notify(worker)
  listener, connection = connect, connect
  listener.exec("listen \"#{NAME}\"")
  worker.each_round do |n|
    connection.exec_params("select pg_notify($1, $2)", [NAME, n.to_s])
    got = nil
    if listener.wait_for_notify(NOTIFY_PATIENCE_S) { |_channel, _pid, payload| got = payload }
      expect("the notification", got, n.to_s)
    else
      worker.lost += 1
    end
    worker.check_state(listener)
  end
end

def cancel(worker)
  connection = connect
  worker.each_round do
    connection.send_query("select pg_sleep(5)")
    sleep CANCEL_AFTER_S
    connection.cancel
    begin
      connection.get_last_result
      raise "the cancel did not arrive"
    rescue PG::QueryCanceled
      nil
    end
    worker.check_state(connection)
  end
end

def logins(worker)
  worker.each_round do |n|
    connection = connect
    connection.exec_params(INSERT, [NAME, worker.name, n])
    worker.acknowledged << n
    worker.check_state(connection)
    connection.close
  end
end

workers = %i[transactions copy notify cancel logins].map { |name| Worker.new(name.to_s) }
workers.map do |worker|
  Thread.new do
    send(worker.name, worker)
  rescue StandardError => e
    worker.error = "#{worker.name}: #{e.class}: #{e.message}"
    warn e.full_message
  end
end.each(&:join)
File.write(ENV["MATRIX_LEDGER"], workers.flat_map { |worker| worker.acknowledged.map { |n| "#{worker.name} #{n}\n" } }.join)
errors = workers.map(&:error).compact
puts JSON.generate(name: NAME, errors: errors, workers: workers.to_h { |worker| [worker.name, worker.summary] })
exit(errors.empty?)
