-- depends_on: {{ ref('raw_orders') }}
select
    id as order_id,
    customer_id,
    ordered_at,
    cast(ordered_at as date) as ordered_on,
    status,
    channel,
    {{ cents_to_euros('shipping_cents') }} as shipping_amount
from {{ source('raw', 'orders') }}
