with returned as (
    select
        order_item_id,
        sum(quantity) as quantity
    from {{ ref('stg_returns') }}
    group by order_item_id
),

items as (
    select
        items.order_item_id,
        items.order_id,
        items.sku,
        products.category,
        items.unit_price,
        products.cost as unit_cost,
        orders.status <> 'cancelled' as is_sale,
        case when orders.status <> 'cancelled' then items.quantity else 0 end as sold_quantity,
        coalesce(returned.quantity, 0) as returned_quantity
    from {{ ref('stg_order_items') }} as items
    inner join {{ ref('stg_orders') }} as orders on items.order_id = orders.order_id
    inner join {{ ref('stg_products') }} as products on items.sku = products.sku
    left join returned on items.order_item_id = returned.order_item_id
)

select
    order_item_id,
    order_id,
    sku,
    category,
    is_sale,
    sold_quantity,
    returned_quantity,
    {{ euros('sold_quantity * unit_price') }} as gross_amount,
    {{ euros('(sold_quantity - returned_quantity) * unit_price') }} as net_amount,
    {{ euros('(sold_quantity - returned_quantity) * (unit_price - unit_cost)') }} as margin
from items
