-- depends_on: {{ ref('raw_payments') }}
select
    id as payment_id,
    order_id,
    method,
    {{ cents_to_euros('amount_cents') }} as amount,
    status,
    paid_at
from {{ source('raw', 'payments') }}
