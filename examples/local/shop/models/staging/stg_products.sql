-- depends_on: {{ ref('raw_products') }}
select
    sku,
    name as product_name,
    category,
    {{ cents_to_euros('price_cents') }} as price,
    {{ cents_to_euros('cost_cents') }} as cost,
    is_sold
from {{ source('raw', 'products') }}
