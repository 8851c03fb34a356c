# redis-rb: hits, pipelines, transactions, pub/sub, blocking, scripts, scans, restarts.
require 'redis'

HOST, PORT = ARGV[0], ARGV[1].to_i
$stdout.sync = true

def client
  Redis.new(host: HOST, port: PORT)
end

def step(what)
  puts "@ #{what}"
  $stdin.gets
end

def is(got, expected)
  raise "expected #{expected.inspect[0, 200]}, got #{got.inspect[0, 200]}" unless got == expected
end

def hits(r)
  r.set('read', '1')
  step('reading')
  10.times { is r.get('read'), '1' }
  step('read')
end

def again(seconds = 15)
  deadline = Time.now + seconds
  begin
    yield
  rescue Redis::BaseError
    raise if Time.now > deadline
    sleep 0.02
    retry
  end
end

r = client
hits(r)
r.flushall
is r.incr('users/a'), 1
is r.get('users/a'), '1'
is r.get('users/none'), nil
is r.pipelined { |p| p.set('users/p', 1); p.incr('users/p'); p.get('users/p') }, ['OK', 2, '2']
is r.multi { |m| m.set('users/p', 1); m.incr('users/p'); m.get('users/p') }, ['OK', 2, '2']
other = client
r.watch('users/p') do
  other.incr('users/p')
  is r.multi { |m| m.set('users/p', 'lost') }, nil
end
is r.get('users/p'), '3'
heard = nil
client.subscribe('news') do |on|
  on.subscribe { |_, _| is other.publish('news', 'hello'), 1 }
  on.message do |_, message|
    heard = message
    raise StopIteration
  end
rescue StopIteration
  nil
end rescue StopIteration
is heard, 'hello'
waiting = Thread.new { client.blpop('queue', timeout: 10) }
sleep 0.05
r.rpush('queue', 'job')
is waiting.value, %w[queue job]
is r.eval("return redis.call('incr', KEYS[1])", keys: ['users/p']), 4
is r.get('users/p'), '4'
r.mapped_mset((0...100).to_h { |i| ["users/#{i}", i.to_s] })
is r.mget((0...100).map { |i| "users/#{i}" }), (0...100).map(&:to_s)
is r.scan_each(match: 'users/*').to_a.uniq.size, 102
r.hset('h', 'a', '1', 'b', 'two')
is r.hgetall('h'), { 'a' => '1', 'b' => 'two' }
big = 'x' * 5_000_000
r.set('big', big)
2.times { is r.get('big'), big }
hits(r)
many = Array.new(20) { client }
many.each { |one| is one.get('read'), '1' }
step('many')
many.each(&:close)
%w[nearside upstream].each do |which|
  step("restart #{which}")
  again { r.set('read', '1') }
  hits(r)
end
puts "redis-rb #{Redis::VERSION}"
