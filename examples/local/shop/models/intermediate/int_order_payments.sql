select
    order_id,
    {{ euros('sum(amount)') }} as paid_amount,
    max(paid_at) as last_paid_at
from {{ ref('stg_payments') }}
where status = 'captured'
group by order_id
