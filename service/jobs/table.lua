-- Every change of a job table in Redis, each atomic. Called with KEYS = {prefix} and
-- ARGV = {command, now, arguments as JSON}; answers JSON. An empty `now` means the server's clock.
--
-- PREFIX job:ID         hash: the job's fields, each as JSON
-- PREFIX jobs           sorted set of ids by number          PREFIX of:OWNER   the same, of an owner
-- PREFIX jobs STATE     the same, of those in a state        PREFIX of:OWNER STATE
-- PREFIX queued         sorted set of ids by turn            PREFIX running    by end of the lease
-- PREFIX beaten         ids that run, by last renewal        PREFIX waiting_since  ids by queued_at
-- PREFIX ended          ids by end                           PREFIX active:OWNER  ids that have not
-- PREFIX key:OWNER KEY  id of the job that the idempotency key stands for
-- PREFIX outbox         ids of deliveries by due time        PREFIX delivery:ID   one, as JSON
-- PREFIX deliveries:ID  ids of a job's deliveries            PREFIX totals     counters
-- PREFIX workers        names by end of their presence       PREFIX worker_info   what they say
local prefix, command = KEYS[1], ARGV[1]
local call = redis.call
local states = {'queued', 'running', 'succeeded', 'failed', 'cancelled'}

local function now_of(text)
  if text ~= '' then return tonumber(text) end
  local time = call('TIME')
  return tonumber(time[1]) + tonumber(time[2]) / 1000000
end
local now = now_of(ARGV[2])
local asked = cjson.decode(ARGV[3])

local function key(...) return prefix .. table.concat({...}) end
local function number(value) return string.format('%.17g', value) end

-- Fields are kept as JSON text, so that what Python wrote comes back as it was.
local function read(id, field)
  local text = call('HGET', key('job:', id), field)
  if not text or text == 'null' then return nil end
  return cjson.decode(text)
end
local function write(id, fields)
  local flat = {}
  for name, value in pairs(fields) do
    flat[#flat + 1] = name
    flat[#flat + 1] = value
  end
  call('HSET', key('job:', id), unpack(flat))
end
local function text(value) return cjson.encode(value) end

local function whole(id)
  local flat = call('HGETALL', key('job:', id))
  if #flat == 0 then return 'null' end
  local parts = {}
  for i = 1, #flat, 2 do parts[#parts + 1] = text(flat[i]) .. ':' .. flat[i + 1] end
  return '{' .. table.concat(parts, ',') .. '}'
end

local function lists(id) return {key('jobs'), key('of:', read(id, 'owner'))} end
local function unlist(id, state)
  for _, list in ipairs(lists(id)) do call('ZREM', list .. ' ' .. state, id) end
end
local function list_in(id, state)
  for _, list in ipairs(lists(id)) do call('ZADD', list .. ' ' .. state, read(id, 'number'), id) end
end
local function enter(id, before, after)
  if before then unlist(id, before) end
  list_in(id, after)
  write(id, {state = text(after)})
end
local function add(name, amount) call('HINCRBYFLOAT', key('totals'), name, number(amount)) end

local function queue(id)
  -- The highest priority first, then the oldest; exact in a double for 2^49 jobs.
  local turn = (9 - read(id, 'priority')) * 2 ^ 49 + read(id, 'number')
  call('ZADD', key('queued'), number(turn), id)
  call('ZADD', key('waiting_since'), number(now), id)
  write(id, {stage = text('queued'), fraction = '0', queued_at = number(now)})
end

local function leave(id)
  for _, set in ipairs({'queued', 'waiting_since', 'running', 'beaten'}) do
    call('ZREM', key(set), id)
  end
end

local function finish(id, state, fields)
  local owner, notify = read(id, 'owner'), call('HGET', key('job:', id), 'notify')
  leave(id)
  enter(id, read(id, 'state'), state)
  write(id, {
    stage = text(state), fraction = state == 'succeeded' and '1' or '0',
    results = fields.results or '[]', error = fields.error or 'null',
    stages = fields.stages or '{}', finished_at = number(now),
  })
  call('SREM', key('active:', owner), id)
  call('ZADD', key('ended'), number(now), id)
  if notify ~= 'null' then
    call('HSET', key('delivery:', asked.delivery), 'job_id', text(id), 'owner', text(owner),
      'notify', notify, 'tries', '0', 'created_at', number(now), 'error', 'null')
    call('ZADD', key('outbox'), number(now), asked.delivery)
    call('SADD', key('deliveries:', id), asked.delivery)
  end
  add('ended.' .. state, 1)
  for stage, seconds in pairs(cjson.decode(fields.stages or '{}')) do
    add('stage.' .. stage .. '.seconds', seconds)
    add('stage.' .. stage .. '.count', 1)
  end
end

local function holds(id, attempt)
  return read(id, 'state') == 'running' and read(id, 'attempt') == attempt
end

-- Count how an attempt failed; queue its job again, cancel it, or end it at the limit.
local function put_back(id, kind, limit, error)
  local count = read(id, kind) + 1
  write(id, {[kind] = text(count)})
  add(kind, 1)
  if read(id, 'cancel_requested') then
    finish(id, 'cancelled', {})
    return 'cancelled'
  elseif limit and count >= limit then
    finish(id, 'failed', {error = error})
    return 'failed'
  end
  leave(id)
  enter(id, 'running', 'queued')
  queue(id)
  return 'queued'
end

-- The job that an idempotency key stands for, if it does still.
local function earlier()
  local id = asked.key and call('GET', key('key:', asked.owner, ' ', asked.key))
  local created = id and read(id, 'created_at')
  return created and created > now - asked.key_s and id
end

local commands = {}

-- {id, owner, priority, key, fingerprint, fields: {name: JSON}, queued, of_owner, key_s}
function commands.submit()
  if call('EXISTS', key('job:', asked.id)) == 1 then return whole(asked.id) end
  local same = earlier()
  if same then
    if read(same, 'fingerprint') ~= asked.fingerprint then return text('key_reused') end
    return whole(same)
  end
  if asked.of_owner and call('SCARD', key('active:', asked.owner)) >= asked.of_owner then
    return text('quota_reached')
  end
  if asked.queued and call('ZCARD', key('queued')) >= asked.queued then return text('queue_full') end
  local count = call('INCR', key('numbers'))
  write(asked.id, asked.fields)
  write(asked.id, {number = text(count), created_at = number(now)})
  enter(asked.id, nil, 'queued')
  queue(asked.id)
  call('ZADD', key('jobs'), count, asked.id)
  call('ZADD', key('of:', asked.owner), count, asked.id)
  call('SADD', key('active:', asked.owner), asked.id)
  if asked.key then call('SET', key('key:', asked.owner, ' ', asked.key), asked.id) end
  return whole(asked.id)
end

function commands.of_key()
  local id = earlier()
  return id and whole(id) or 'null'
end

function commands.cancel()
  local state = read(asked.id, 'state')
  if state == 'queued' or state == 'running' then
    write(asked.id, {cancel_requested = 'true'})
  end
  if state == 'queued' then finish(asked.id, 'cancelled', {}) end
  return whole(asked.id)
end

function commands.purge()
  local id = asked.id
  if not call('ZSCORE', key('ended'), id) then return 'false' end
  local owner, idempotency = read(id, 'owner'), read(id, 'idempotency_key')
  if idempotency then
    local named = key('key:', owner, ' ', idempotency)
    if call('GET', named) == id then call('DEL', named) end
  end
  for _, delivery in ipairs(call('SMEMBERS', key('deliveries:', id))) do
    call('ZREM', key('outbox'), delivery)
    call('DEL', key('delivery:', delivery))
  end
  unlist(id, read(id, 'state'))
  for _, set in ipairs({key('jobs'), key('ended'), key('of:', owner)}) do call('ZREM', set, id) end
  call('DEL', key('job:', id), key('deliveries:', id))
  return 'true'
end

function commands.claim()
  local id = call('ZRANGE', key('queued'), 0, 0)[1]
  if not id then return 'null' end
  leave(id)
  enter(id, 'queued', 'running')
  write(id, {
    stage = text('starting'), fraction = '0', attempt = text(read(id, 'attempt') + 1),
    worker = asked.worker, lease_until = number(now + asked.lease_s), beaten_at = number(now),
    started_at = number(now),
  })
  call('ZADD', key('running'), number(now + asked.lease_s), id)
  call('ZADD', key('beaten'), number(now), id)
  return whole(id)
end

function commands.beat()
  local id = asked.id
  if not holds(id, asked.attempt) then return 'null' end
  write(id, {
    stage = asked.stage, fraction = asked.fraction, beaten_at = number(now),
    lease_until = number(now + asked.lease_s),
  })
  call('ZADD', key('running'), number(now + asked.lease_s), id)
  call('ZADD', key('beaten'), number(now), id)
  return whole(id)
end

function commands.finish()
  if read(asked.id, 'attempt') ~= asked.attempt then return 'false' end
  local state = read(asked.id, 'state')
  if state ~= 'running' then return text(state == asked.state) end
  finish(asked.id, asked.state, asked)
  return 'true'
end

function commands.put_back()
  if not holds(asked.id, asked.attempt) then return 'null' end
  return text(put_back(asked.id, asked.kind, asked.limit, asked.error))
end

-- One job a call: each delivery of the outbox needs an id of its own.
function commands.reclaim()
  local id = call('ZRANGEBYSCORE', key('running'), '-inf', '(' .. number(now), 'LIMIT', 0, 1)[1]
  if not id then return 'null' end
  return text({id, put_back(id, 'losses', asked.limit, asked.error)})
end

function commands.announce()
  for _, name in ipairs(call('ZRANGEBYSCORE', key('workers'), '-inf', '(' .. number(now))) do
    call('ZREM', key('workers'), name)
    call('HDEL', key('worker_info'), name)
  end
  call('ZADD', key('workers'), number(now + asked.ttl_s), asked.worker)
  call('HSET', key('worker_info'), asked.worker,
    '{"seen_at":' .. number(now) .. ',"info":' .. asked.info .. '}')
  return 'true'
end

function commands.workers()
  local parts = {}
  for _, name in ipairs(call('ZRANGEBYSCORE', key('workers'), number(now), '+inf')) do
    parts[#parts + 1] = text(name) .. ':' .. call('HGET', key('worker_info'), name)
  end
  return '{' .. table.concat(parts, ',') .. '}'
end

local function delivery(id)
  local flat = call('HGETALL', key('delivery:', id))
  local parts = {'"id":' .. text(id)}
  for i = 1, #flat, 2 do parts[#parts + 1] = text(flat[i]) .. ':' .. flat[i + 1] end
  return '{' .. table.concat(parts, ',') .. '}'
end

function commands.take_deliveries()
  local due = call('ZRANGEBYSCORE', key('outbox'), '-inf', number(now), 'LIMIT', 0, asked.limit)
  local parts = {}
  for _, id in ipairs(due) do
    call('ZADD', key('outbox'), number(now + asked.lease_s), id)
    call('HINCRBY', key('delivery:', id), 'tries', 1)
    call('HSET', key('delivery:', id), 'due_at', number(now + asked.lease_s))
    parts[#parts + 1] = delivery(id)
  end
  return '[' .. table.concat(parts, ',') .. ']'
end

function commands.drop_delivery()
  local job = call('HGET', key('delivery:', asked.id), 'job_id')
  if job then call('SREM', key('deliveries:', cjson.decode(job)), asked.id) end
  call('ZREM', key('outbox'), asked.id)
  call('DEL', key('delivery:', asked.id))
  return 'true'
end

function commands.postpone_delivery()
  if not call('ZSCORE', key('outbox'), asked.id) then return 'false' end
  call('ZADD', key('outbox'), number(now + asked.delay_s), asked.id)
  call('HSET', key('delivery:', asked.id), 'error', asked.error,
    'due_at', number(now + asked.delay_s))
  return 'true'
end

function commands.summary()
  local function first(set) return call('ZRANGE', key(set), 0, 0, 'WITHSCORES')[2] or 'null' end
  local function object(flat)
    local parts = {}
    for i = 1, #flat, 2 do parts[#parts + 1] = text(flat[i]) .. ':' .. flat[i + 1] end
    return '{' .. table.concat(parts, ',') .. '}'
  end
  local counts = {}
  for _, state in ipairs(states) do counts[state] = call('ZCARD', key('jobs ', state)) end
  return '{"now":' .. number(now)
    .. ',"counts":' .. text(counts)
    .. ',"oldest_queued_at":' .. first('waiting_since')
    .. ',"oldest_beat_at":' .. first('beaten')
    .. ',"deliveries":' .. call('ZCARD', key('outbox'))
    .. ',"totals":' .. object(call('HGETALL', key('totals'))) .. '}'
end

-- Before jobs were listed by state they were counted in `states`: where that is, what wrote it may
-- still be at work, and all that was listed is listed anew.
local function list_by_state()
  local begun = {}
  for _, id in ipairs(call('ZRANGE', key('jobs'), 0, -1)) do
    for _, list in ipairs(lists(id)) do
      for _, state in ipairs(begun[list] and {} or states) do call('DEL', list .. ' ' .. state) end
      begun[list] = true
    end
    list_in(id, read(id, 'state'))
  end
  call('DEL', key('states'))
end
if call('EXISTS', key('states')) == 1 then list_by_state() end

return commands[command]()
