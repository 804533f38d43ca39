-- depends_on: {{ ref('raw_order_items') }}
select
    id as order_item_id,
    order_id,
    sku,
    quantity,
    {{ cents_to_euros('unit_price_cents') }} as unit_price
from {{ source('raw', 'order_items') }}
