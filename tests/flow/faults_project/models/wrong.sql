select 'unknown' as status
