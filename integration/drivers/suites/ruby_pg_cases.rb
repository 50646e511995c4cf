# Sessions of ruby-pg: prints a line for each case with what it saw. Arguments: port, user, database.
require 'pg'

$where = { host: '127.0.0.1', port: ARGV[0].to_i, user: ARGV[1], dbname: ARGV[2] }
def t(name)
  r = begin
    yield
  rescue => e
    "#{e.class}: #{e.message.lines.first}"
  end
  puts "#{name}: #{r.inspect}"
end
c = PG.connect(**$where)
t('exec'){c.exec('SELECT 1 AS a').to_a}
t('params'){c.exec_params('SELECT $1::int + $2::int AS s',[1,2]).to_a}
t('prepare'){c.prepare('p1','SELECT $1::text || $2::text AS x'); c.exec_prepared('p1',['a','b']).to_a}
t('describe'){r=c.describe_prepared('p1'); [r.nparams,r.paramtype(0),r.nfields,r.ftype(0)]}
t('binary'){c.exec_params('SELECT 42::int8 AS b',[],1).getvalue(0,0).unpack1('q>')}
t('tx'){c.transaction{|x| x.exec("CREATE TEMP TABLE tt(a int)"); x.exec("INSERT INTO tt VALUES (1),(2)"); x.exec("SELECT sum(a) FROM tt").getvalue(0,0)}}
t('txfail'){begin; c.transaction{|x| x.exec("INSERT INTO tt VALUES (3)"); raise 'boom'}; rescue => e; e.message; end}
t('count'){c.exec("SELECT count(*) FROM tt").getvalue(0,0)}
t('copyin'){c.copy_data("COPY tt FROM STDIN"){10.times{|i| c.put_copy_data("#{i}\n")}}; c.exec("SELECT count(*) FROM tt").getvalue(0,0)}
t('copyout'){n=0; c.copy_data("COPY tt TO STDOUT"){while c.get_copy_data; n+=1; end}; n}
t('copyfail'){begin; c.copy_data("COPY tt FROM STDIN"){c.put_copy_data("x\n")}; rescue PG::Error => e; e.class; end}
t('single_row'){c.send_query("SELECT generate_series(1,1000)"); c.set_single_row_mode; n=0; c.get_result.stream_each{n+=1}; c.get_result; n}
t('multi'){c.send_query("SELECT 1; SELECT 2"); a=[]; while r=c.get_result; a<<r.getvalue(0,0); end; a}
t('notify'){d=PG.connect(**$where); c.exec('LISTEN ch'); d.exec("NOTIFY ch,'hi'"); x=nil; c.wait_for_notify(5){|ch,pid,pl| x=[ch,pl]}; x}
t('cancel'){c.send_query('SELECT pg_sleep(20)'); sleep 0.5; c.cancel; begin; c.get_last_result; rescue PG::QueryCanceled => e; e.class; end}
t('lo'){c.transaction{ o=c.lo_creat; f=c.lo_open(o,0x60000); c.lo_write(f,'hello'); c.lo_lseek(f,0,0); s=c.lo_read(f,10); c.lo_close(f); c.lo_unlink(o); s}}
t('pipeline'){c.enter_pipeline_mode; 5.times{|i| c.send_query_params('SELECT $1::int*2',[i])}; c.pipeline_sync; a=[]; loop{r=c.get_result; if r.nil? then r=c.get_result; end; break if r.nil? || r.result_status==PG::PGRES_PIPELINE_SYNC; a<<r.getvalue(0,0)}; c.exit_pipeline_mode; a}
t('error'){begin; c.exec('SELECT nope'); rescue PG::UndefinedColumn => e; e.result.error_field(PG::PG_DIAG_SQLSTATE); end}
t('notice'){x=[]; c.set_notice_processor{|m| x<<m}; c.exec('DO $$BEGIN RAISE NOTICE $q$n$q$; END$$'); x}
t('enc'){c.set_client_encoding('LATIN1'); r=c.exec("SELECT chr(233)").getvalue(0,0); c.set_client_encoding('UTF8'); [r.encoding.to_s,r.bytes]}
t('status'){[c.transaction_status,c.server_version,c.parameter_status('TimeZone'),c.conninfo_hash[:dbname]]}
t('reset'){c.reset; c.exec('SELECT 5').getvalue(0,0)}
t('ping'){PG::Connection.ping(**$where)}
t('cursor'){c.transaction{c.exec('DECLARE cc CURSOR FOR SELECT generate_series(1,10)'); [c.exec('FETCH 3 FROM cc').ntuples, c.exec('FETCH ALL FROM cc').ntuples]}}
t('typemap'){c.type_map_for_results=PG::BasicTypeMapForResults.new(c); c.exec("SELECT 1.5::float8, true, ARRAY[1,2]").values}
